"""The fits from which ``benchmarks/growth.py`` computes what 10,000 cases take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def growth() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import growth

        yield growth
        for name in ("growth", "measuring"):
            sys.modules.pop(name)


X = [5.0, 10.0, 20.0, 40.0, 80.0]


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("offset", [0.0, 0.2, 5.0])
def test_exponent_beside_a_fixed_cost(growth: Any, p: float, offset: float) -> None:
    b = 3e-4
    y = [b * (offset * 10**p + x**p) for x in X]
    fitted = growth.fit(X, y)
    assert fitted["p"] == pytest.approx(p, abs=0.02)
    assert growth.value(fitted, 1000.0) == pytest.approx(b * (offset * 10**p + 1000.0**p), rel=0.1)
    assert fitted["error"] < 0.01


def test_unit_does_not_matter(growth: Any) -> None:
    y = [1e-3 + 2e-4 * x for x in X]
    small, large = growth.fit(X, y), growth.fit([1e6 * x for x in X], [1e9 * each for each in y])
    assert large["p"] == pytest.approx(small["p"], abs=1e-3)
    assert growth.value(large, 1e9) == pytest.approx(1e9 * growth.value(small, 1e3), rel=1e-3)


def test_noise_of_a_tenth(growth: Any) -> None:
    noise = np.random.default_rng(0).uniform(0.9, 1.1, len(X))
    fitted = growth.fit(X, [0.01 * x * factor for x, factor in zip(X, noise, strict=True)])
    assert fitted["p"] == pytest.approx(1.0, abs=0.2)
    assert 0.01 < fitted["error"] < 0.2


def test_what_does_not_grow_has_exponent_0(growth: Any) -> None:
    fitted = growth.fit(X, [7.0, 7.1, 6.9, 7.05, 7.0])
    assert fitted["p"] == fitted["b"] == 0.0
    assert growth.value(fitted, 1e6) == pytest.approx(7.0, rel=0.02)

"""Which case and which trainers the picture of examples shows."""

from __future__ import annotations

import math

import pytest

from nnunetv2_sikd.stress.examples import median_case, one_of_each
from nnunetv2_sikd.stress.scores import Score


def scores(trainer: str, **dice: float) -> list[Score]:
    """One score under blur of each case; class levels, which do not count, say the opposite."""
    return [
        Score(trainer, case, shift, 1, "heart", value)
        for case, each in dice.items()
        for shift, value in (("blur", each), ("class_levels", 1 - each))
    ]


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ({"a": 0.9, "b": 0.1, "c": 0.5}, "c"),
        ({"a": 0.9, "b": 0.1, "c": 0.5, "d": 0.6}, "c"),
        ({"a": 0.9, "b": 0.1, "c": math.nan, "d": 0.6}, "d"),
        ({"a": math.nan, "b": math.nan}, "a"),
    ],
    ids=["odd", "even", "a case without Dice", "none"],
)
def test_median(dice: dict[str, float], expected: str) -> None:
    assert median_case(scores("one", **dice), list(dice)) == expected


def test_median_is_of_all_trainers_that_have_all_cases() -> None:
    rows = [*scores("one", a=0.9, b=0.1, c=0.5), *scores("other", a=0.1, b=0.2, c=0.9), *scores("part", c=0.0)]
    assert median_case(rows, ["a", "b", "c"]) == "a"  # means 0.5, 0.15 and 0.7
    assert median_case(rows, ["a", "b"]) == "b"


def test_one_of_each() -> None:
    assert one_of_each(["x_seed1_2epochs", "y", "x_seed0_2epochs"]) == ["x_seed1_2epochs", "y"]

"""Wilcoxon's signed-rank test over patients, Holm's correction, and what an interval says in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

MINIMUM_PATIENTS = 6
"""Fewer that differ cannot reach p < 0.05 in a two-sided test, whatever they show (2 / 2^5 = 0.0625)."""

Verdict = Literal[
    "better",
    "worse",
    "no difference shown",
    "non-inferior",
    "non-inferior, and higher",
    "non-inferior, but lower",
    "non-inferiority not shown",
    "non-inferiority not shown, and lower",
    "too few patients",
]


def signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p value that the differences are symmetric around 0.

    Patients without any difference keep their ranks (Pratt), so that ties weaken the evidence instead of vanishing.

    Args:
        differences: One per patient, shape ``(patients,)``.

    Returns:
        The p value; nan if fewer than ``MINIMUM_PATIENTS`` differ.
    """
    # Rounded: equal differences must not become unequal by their last digits.
    rounded = np.sort(np.round(differences, 12))
    if np.count_nonzero(rounded) < MINIMUM_PATIENTS:
        return float("nan")
    return float(stats.wilcoxon(rounded, zero_method="pratt").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm); nan stays and does not count.

    Reference:
        Holm: A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 1979.
    """
    values = np.asarray(p_values, dtype=float)
    there = np.isfinite(values)
    corrected = np.full(values.shape, np.nan)
    if there.any():
        corrected[there] = multipletests(values[there], method="holm")[1]
    return [float(value) for value in corrected]


def superiority(low: float, high: float, *, higher_is_better: bool) -> Verdict:
    """What an interval of arm minus baseline says about which is better."""
    if not np.isfinite([low, high]).all():
        return "too few patients"
    if low > 0 or high < 0:
        return "better" if (low > 0) == higher_is_better else "worse"
    return "no difference shown"


def non_inferiority(low: float, high: float, margin: float) -> Verdict:
    """Whether an interval of Dice differences rules out a loss of the margin; never that two arms are equal.

    Args:
        low: Lower end of the two-sided 95 % interval, so that the one-sided error is 2.5 %.
        high: Upper end.
        margin: Loss that is still called none.
    """
    if not np.isfinite([low, high]).all():
        return "too few patients"
    if low > -margin:
        return "non-inferior, and higher" if low > 0 else "non-inferior, but lower" if high < 0 else "non-inferior"
    return "non-inferiority not shown, and lower" if high < 0 else "non-inferiority not shown"

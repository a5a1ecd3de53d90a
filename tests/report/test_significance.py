"""Tests and verdicts against calculations by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnunetv2_sikd.report.significance import holm, non_inferiority, signed_rank_p, superiority

NAN = math.nan


class TestSignedRank:
    def test_six_patients_that_all_improve(self) -> None:
        # 2 of 2^6 sign patterns are as extreme.
        assert signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(2 / 64)

    def test_by_hand_with_one_that_worsens(self) -> None:
        # Ranks 1 to 6, the negative one has rank 1: W = 1, and the patterns with W <= 1 are 2 of 64, twice.
        assert signed_rank_p(np.array([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6])) == pytest.approx(4 / 64)

    def test_five_are_too_few(self) -> None:
        assert math.isnan(signed_rank_p(np.array([0.1, 0.2, 0.3, 0.4, 0.5])))

    def test_patients_without_difference_are_no_evidence(self) -> None:
        assert math.isnan(signed_rank_p(np.zeros(30)))

    def test_they_keep_their_ranks(self) -> None:
        values = np.array([0.0, 0.0, 0.0, -0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7])
        pratt, dropped = (stats.wilcoxon(values, zero_method=method).pvalue for method in ("pratt", "wilcox"))
        assert signed_rank_p(values) == pytest.approx(pratt)
        assert pratt != pytest.approx(dropped, rel=0.01)

    def test_last_digits_make_no_difference(self) -> None:
        values = np.array([0.1, 0.1, -0.1, 0.2, 0.2, 0.3, 0.4])
        noise = np.array([1, -1, 1, -1, 1, -1, 1]) * 1e-16
        assert signed_rank_p(values) == signed_rank_p(values + noise)


class TestHolm:
    def test_by_hand(self) -> None:
        # Sorted 0.01 · 3, 0.03 · 2, then 0.04 · 1 raised to the one before it.
        assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])

    def test_never_above_one(self) -> None:
        assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])

    def test_missing_values_stay_and_do_not_count(self) -> None:
        corrected = holm([0.02, NAN, 0.5])
        assert corrected[0] == pytest.approx(0.04)
        assert math.isnan(corrected[1])
        assert corrected[2] == pytest.approx(0.5)
        assert all(math.isnan(value) for value in holm([NAN, NAN]))


class TestVerdicts:
    @pytest.mark.parametrize(
        ("low", "high", "higher_is_better", "expected"),
        [
            (0.01, 0.05, True, "better"),
            (-0.05, -0.01, True, "worse"),
            (-0.01, 0.05, True, "no difference shown"),
            (-3.0, -1.0, False, "better"),
            (1.0, 3.0, False, "worse"),
            (0.0, 0.05, True, "no difference shown"),
            (NAN, NAN, True, "too few patients"),
        ],
    )
    def test_superiority(self, low: float, high: float, higher_is_better: bool, expected: str) -> None:
        assert superiority(low, high, higher_is_better=higher_is_better) == expected

    @pytest.mark.parametrize(
        ("low", "high", "expected"),
        [
            (-0.019, 0.01, "non-inferior"),
            (-0.02, 0.01, "non-inferiority not shown"),
            (-0.03, 0.01, "non-inferiority not shown"),
            (-0.019, -0.001, "non-inferior, but lower"),
            (0.001, 0.02, "non-inferior, and higher"),
            (-0.05, -0.03, "non-inferiority not shown, and lower"),
            (NAN, NAN, "too few patients"),
        ],
    )
    def test_non_inferiority(self, low: float, high: float, expected: str) -> None:
        verdict = non_inferiority(low, high, 0.02)
        assert verdict == expected
        assert "equal" not in verdict

"""Statistics: what must not matter does not, results are in their bounds, and degenerate input gives nan, no error."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.report.pairing import MEAN_LABEL, patient_scores
from nnunetv2_sikd.report.significance import holm, non_inferiority, signed_rank_p, superiority

# Dice differences as files hold them; subnormal ones only test the last digits of floats.
DIFFERENCES = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
MATRICES = hnp.arrays(np.float64, st.tuples(st.integers(0, 3), st.integers(0, 8)), elements=DIFFERENCES)
P_VALUES = st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), max_size=8)
ENDS = st.tuples(DIFFERENCES, DIFFERENCES).map(sorted)


@given(MATRICES)
@settings(max_examples=20, deadline=None)
def test_interval_is_in_order_around_the_data(differences: np.ndarray) -> None:
    low, high = interval(differences)
    if differences.shape[0] == 0 or differences.shape[1] < 2:
        assert math.isnan(low)
        assert math.isnan(high)
        return
    assert low <= high
    if differences.shape[0] == 1:
        assert differences.min() - 1e-12 <= low
        assert high <= differences.max() + 1e-12
    else:
        assert low - 1e-12 <= differences.mean() <= high + 1e-12


@given(MATRICES.filter(lambda m: m.shape[0] > 0 and m.shape[1] > 1), st.sampled_from([0.5, 2.0]))
@settings(max_examples=12, deadline=None)
def test_interval_follows_the_scale(differences: np.ndarray, scale: float) -> None:
    # By powers of two, which round nothing: resampled means of few patients are few values, and rounding changes which.
    np.testing.assert_allclose(interval(differences * scale), np.array(interval(differences)) * scale, rtol=1e-9)


@given(st.lists(DIFFERENCES, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_p_value_knows_neither_order_nor_sign_nor_scale(values: list[float], random: object) -> None:
    differences = np.array(values, dtype=float)
    p = signed_rank_p(differences)
    assert math.isnan(p) == (np.count_nonzero(differences) < 6)
    assert math.isnan(p) or 0 < p <= 1
    random.shuffle(values)  # type: ignore[attr-defined]
    others = [signed_rank_p(each) for each in (np.array(values, dtype=float), -differences, 4 * differences)]
    np.testing.assert_allclose(others, [p] * 3, rtol=1e-9)


@given(P_VALUES)
@settings(max_examples=25, deadline=None)
def test_correction_only_weakens_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert [math.isnan(p) for p in corrected] == [math.isnan(p) for p in p_values]
    pairs = sorted((p, q) for p, q in zip(p_values, corrected, strict=True) if not math.isnan(p))
    assert all(p <= q + 1e-12 and q <= 1 for p, q in pairs)
    assert all(one[1] <= other[1] + 1e-12 for one, other in pairwise(pairs))
    there = [p for p in p_values if not math.isnan(p)]
    if there:
        assert math.isclose(min(q for _, q in pairs), min(1, len(there) * min(there)), rel_tol=1e-9, abs_tol=1e-300)


@given(ENDS, st.booleans(), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_verdicts_turn_with_the_sign_and_a_wider_margin_never_takes_one_away(
    ends: list[float], higher_is_better: bool, margin: float, more: float
) -> None:
    low, high = ends
    opposite = {"better": "worse", "worse": "better"}
    verdict = superiority(low, high, higher_is_better=higher_is_better)
    assert superiority(-high, -low, higher_is_better=higher_is_better) == opposite.get(verdict, verdict)
    if non_inferiority(low, high, margin).startswith("non-inferior,") or low > -margin:
        assert non_inferiority(low, high, margin + more).startswith("non-inferior")
        assert not non_inferiority(low, high, margin + more).startswith("non-inferiority")


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Scores of two arms, two trainings, three patients of up to two volumes, two labels; some missing."""
    rows = []
    for arm in ("stock", "sikd"):
        for training in ("seed0_fold0", "seed1_fold0"):
            for patient, volumes in (("p1", 2), ("p2", 1), ("p3", 1)):
                for volume in range(volumes):
                    for label in ("a", "b"):
                        if draw(st.integers(0, 9)) == 0:
                            continue
                        row = {"arm": arm, "training": training, "test": "t", "label": label, "patient": patient}
                        empty = "reference" if (patient, label) == ("p3", "b") else "none"
                        value = draw(st.one_of(st.just(math.nan), st.integers(0, 100).map(lambda n: n / 100)))
                        rows.append({**row, "case": f"{patient}_{volume}", "empty": empty, "dice": value})
    columns = ["arm", "training", "test", "label", "patient", "case", "empty", "dice"]
    return pd.DataFrame(rows, columns=columns)


@given(frames(), st.sampled_from(["a", "b", MEAN_LABEL]), st.integers(0, 2**16))
@settings(max_examples=20, deadline=None)
def test_pairing(frame: pd.DataFrame, label: str, seed: int) -> None:
    if not {"stock", "sikd"} <= set(frame["arm"]):
        return
    arms = ("stock", "sikd")
    scores = patient_scores(frame, arms, "t", label, "dice")
    assert np.isfinite(scores.values).all()
    assert scores.values.shape == (
        2,
        len(scores.trainings) if scores.patients else scores.values.shape[1],
        len(scores.patients),
    )
    assert ((scores.values >= 0) & (scores.values <= 1)).all()
    assert "p3" not in scores.patients or label != "b"  # its reference lacks b
    # Neither the order of the rows nor that of the arms matters.
    shuffled = patient_scores(frame.sample(frac=1, random_state=seed), arms, "t", label, "dice")
    assert (shuffled.patients, shuffled.absent, shuffled.unpaired) == (scores.patients, scores.absent, scores.unpaired)
    np.testing.assert_allclose(shuffled.values, scores.values, atol=1e-12)
    turned = patient_scores(frame, arms[::-1], "t", label, "dice")
    np.testing.assert_allclose(turned.differences(), -scores.differences(), atol=1e-12)

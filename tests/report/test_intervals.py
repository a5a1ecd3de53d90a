"""Intervals hold what they claim, in simulations whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnunetv2_sikd.report import intervals
from nnunetv2_sikd.report.intervals import independent, interval, patient_interval, two_level_interval


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulations repeat the bootstrap hundreds of times."""
    monkeypatch.setattr(intervals, "RESAMPLES", 599)


def draw(random: np.random.Generator, trainings: int, patients: int, *, seeds: float, noise: float = 0.5) -> np.ndarray:
    """Differences of mean 0: a part of each training, one of each patient (sd 1), and noise."""
    return (
        seeds * random.normal(size=(trainings, 1))
        + random.normal(size=(1, patients))
        + noise * random.normal(size=(trainings, patients))
    )


def coverage(trainings: int, patients: int, *, seeds: float, repeats: int, truth: float = 0.0) -> float:
    random = np.random.default_rng(1)
    ends = [interval(truth + draw(random, trainings, patients, seeds=seeds)) for _ in range(repeats)]
    return float(np.mean([low <= truth <= high for low, high in ends]))


@pytest.mark.usefixtures("few_resamples")
class TestCoverage:
    def test_over_patients(self) -> None:
        assert 0.89 <= coverage(1, 30, seeds=0.0, repeats=300, truth=0.3) <= 0.985

    @pytest.mark.parametrize(("trainings", "seeds"), [(3, 0.0), (3, 1.0), (5, 0.3), (5, 1.0)])
    def test_over_trainings_and_patients(self, trainings: int, seeds: float) -> None:
        assert 0.89 <= coverage(trainings, 20, seeds=seeds, repeats=300, truth=-0.2) <= 0.99

    def test_patients_alone_would_claim_too_much(self) -> None:
        """What the second level is for: trainings that differ as patients do."""
        random = np.random.default_rng(1)
        missed = 0
        for _ in range(100):
            low, high = patient_interval(draw(random, 3, 20, seeds=1.0).mean(axis=0))
            missed += not low <= 0 <= high
        assert missed > 25  # of 5 that 95 % would allow

    def test_over_folds_of_several_seeds(self) -> None:
        """Seeds of one fold share what its training cases make of a network."""
        random, folds = np.random.default_rng(1), np.repeat(np.arange(5), 3)
        held = {"as they are": 0, "by fold": 0}
        for _ in range(300):
            differences = draw(random, 15, 20, seeds=0.5, noise=1.0) + random.normal(size=5)[folds, None]
            for name, values in (("as they are", differences), ("by fold", independent(differences, list(folds)))):
                low, high = interval(values)
                held[name] += low <= 0 <= high
        assert 0.89 <= held["by fold"] / 300 <= 0.99
        assert held["as they are"] / 300 < 0.86

    def test_an_effect_is_found(self) -> None:
        random = np.random.default_rng(2)
        found = [interval(1.5 + draw(random, 5, 20, seeds=0.2))[0] > 0 for _ in range(50)]
        assert np.mean(found) > 0.9


class TestOneTraining:
    def test_is_scipys_bca(self) -> None:
        values = np.random.default_rng(0).exponential(size=15)
        expected = stats.bootstrap(
            (np.sort(values),), np.mean, n_resamples=9999, method="BCa", random_state=np.random.default_rng(99)
        ).confidence_interval
        assert interval(values[None]) == pytest.approx((expected.low, expected.high), abs=0.08)  # another seed

    def test_is_the_same_each_time_and_in_any_order(self) -> None:
        values = np.random.default_rng(0).normal(size=15)
        assert interval(values[None]) == interval(values[None]) == interval(values[None, ::-1])

    def test_equal_differences_have_no_width(self) -> None:
        assert interval(np.full((1, 8), 0.25)) == (0.25, 0.25)

    def test_skewed_beyond_bca_still_has_an_interval(self) -> None:
        low, high = interval(np.array([[0.0] * 20 + [1.0]]))
        assert 0 <= low < high <= 1


class TestTwoLevels:
    def test_is_wider_if_trainings_differ(self) -> None:
        differences = draw(np.random.default_rng(0), 5, 25, seeds=0.0)
        moved = differences + np.array([-1.0, -0.5, 0.0, 0.5, 1.0])[:, None]
        (low, high), (wider_low, wider_high) = two_level_interval(differences), two_level_interval(moved)
        assert wider_low < low < high < wider_high
        assert sum(two_level_interval(moved)) / 2 == pytest.approx(differences.mean())

    def test_two_trainings_that_differ_tell_little(self) -> None:
        differences = np.array([[0.1], [0.3]]) + np.zeros((2, 20))
        low, high = two_level_interval(differences)
        # Close to the t interval of two numbers, 0.2 ± 12.7 · 0.1: half of its variance is lost in resampling two.
        assert low < -0.5
        assert high > 0.9

    def test_same_trainings_give_what_patients_give(self) -> None:
        """A second training that changes nothing must not narrow the interval."""
        one = np.random.default_rng(0).normal(size=30)
        low, high = two_level_interval(np.stack([one, one]))
        t = stats.t.ppf(0.975, 29) * one.std(ddof=1) / np.sqrt(30)
        assert high - low == pytest.approx(2 * t, rel=0.05)


class TestIndependent:
    def test_seeds_of_a_fold_are_averaged(self) -> None:
        values = np.arange(24.0).reshape(2, 4, 3)
        found = independent(values, [1, 0, 1, 0])
        assert found.shape == (2, 2, 3)
        np.testing.assert_array_equal(found[:, 0], (values[:, 1] + values[:, 3]) / 2)
        np.testing.assert_array_equal(found[:, 1], (values[:, 0] + values[:, 2]) / 2)

    @pytest.mark.parametrize("folds", [[], [3], [0, 0, 0], [0, 1, 2], [2, 0, 1]])
    def test_one_fold_or_one_training_each_stay_as_they_are(self, folds: list[int]) -> None:
        values = np.random.default_rng(0).normal(size=(2, len(folds), 4))
        assert independent(values, folds) is values

    def test_a_fold_with_fewer_seeds_counts_as_much(self) -> None:
        found = independent(np.array([[1.0], [3.0], [5.0]]), [0, 0, 1])
        np.testing.assert_array_equal(found, [[2.0], [5.0]])


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 1)])
def test_one_patient_tells_nothing(shape: tuple[int, int]) -> None:
    assert np.isnan(interval(np.zeros(shape))).all()

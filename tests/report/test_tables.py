"""Pairs, patients and labels: what goes into a difference, and what is left out and counted."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
import pandas as pd
import pytest

from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.report.pairing import MEAN_LABEL, patient_scores
from nnunetv2_sikd.report.scores import METRICS
from nnunetv2_sikd.report.tables import difference_table, summary_table


def row(
    arm: str, case: str, dice: float, *, training: str = "fold0", label: str = "LV", **more: object
) -> dict[str, object]:
    """A row of the tidy table; the patient is the case's name up to its underscore."""
    found: dict[str, object] = dict.fromkeys(METRICS, dice)
    found |= {"arm": arm, "seed": None, "fold": 0, "training": training, "test": "T", "label": label, "case": case}
    return {**found, "patient": case.split("_")[0], "empty": "none", "unit": "mm", **more}


def frame(*rows: Iterable[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(list(chain(*rows)))


def random_frame(effect: float = 0.05, patients: int = 12, trainings: int = 1, volumes: int = 2) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        for training in range(trainings):
            for volume in range(volumes):
                for label in ("RV", "LV"):
                    base = random.normal(0.7, 0.05)
                    case, key = f"p{patient}_{volume}", f"seed{training}_fold0"
                    rows.append(row("stock", case, base, training=key, label=label))
                    dice = base + effect + random.normal(0, 0.02)
                    rows.append(row("sikd", case, dice, training=key, label=label, hausdorff95=10 - 10 * dice))
    return frame(rows)


def random_folds(trainings: Iterable[tuple[int, int]]) -> pd.DataFrame:
    """Scores of one label of trainings of some seeds and folds."""
    random = np.random.default_rng(0)
    return frame(
        row(arm, f"p{patient}", random.normal(0.7, 0.05), training=f"seed{seed}_fold{fold}", fold=fold)
        for arm in ("stock", "sikd")
        for seed, fold in trainings
        for patient in range(8)
    )


def differences(scores: pd.DataFrame, source: Iterable[str] = ()) -> pd.DataFrame:
    return difference_table(scores, "stock", ["sikd"], list(source), 0.02).set_index(["label", "metric"])


class TestPairing:
    def test_volumes_of_a_patient_are_one_value(self) -> None:
        scores = frame(
            [row("stock", "a_1", 0.2), row("stock", "a_2", 0.4), row("stock", "b_1", 0.9)],
            [row("sikd", "a_1", 0.4), row("sikd", "a_2", 0.8), row("sikd", "b_1", 0.8)],
        )
        found = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice")
        assert found.patients == ("a", "b")
        assert found.differences() == pytest.approx(np.array([[0.3, -0.1]]))

    def test_pairs_are_of_one_training(self) -> None:
        scores = frame(
            [row("stock", "a", 0.1, training="seed0_fold0"), row("stock", "a", 0.5, training="seed1_fold0")],
            [row("sikd", "a", 0.6, training="seed1_fold0"), row("sikd", "a", 0.9, training="seed2_fold0")],
        )
        found = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice")
        assert found.trainings == ("seed1_fold0",)
        assert found.differences() == pytest.approx(np.array([[0.1]]))

    def test_no_shared_training(self) -> None:
        scores = frame([row("stock", "a", 0.1, training="seed0_fold0"), row("sikd", "a", 0.5, training="seed1_fold0")])
        assert patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice").differences().size == 0
        assert difference_table(scores, "stock", ["sikd"], [], 0.02).empty

    def test_the_reference_decides_what_counts(self) -> None:
        """One arm finds what is not there (Dice 0), the other does not (nan): no pair, for either arm."""
        scores = frame(
            [row("stock", "a", 0.8), row("stock", "b", np.nan, empty="both")],
            [row("sikd", "a", 0.7), row("sikd", "b", 0.0, empty="reference")],
        )
        found = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice")
        assert (found.patients, found.absent, found.unpaired) == (("a",), 1, 0)

    def test_a_missed_structure_counts(self) -> None:
        scores = frame([row("stock", "a", 0.8), row("sikd", "a", 0.0, empty="prediction")])
        found = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice")
        assert found.differences() == pytest.approx(np.array([[-0.8]]))

    def test_a_volume_without_a_value_in_one_training_is_left_out_everywhere_and_counted(self) -> None:
        scores = frame(
            row(arm, case, np.nan if (arm, case, training) == ("sikd", "b_1", "s1") else 0.5, training=training)
            for arm in ("stock", "sikd")
            for case in ("a_1", "b_1", "b_2")
            for training in ("s0", "s1")
        )
        found = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice")
        assert (found.patients, found.unpaired) == (("a", "b"), 1)
        assert found.values.shape == (2, 2, 2)
        assert np.isfinite(found.values).all()

    def test_mean_over_the_labels_that_a_patient_has(self) -> None:
        rows = []
        for arm, plus in (("stock", 0.0), ("sikd", 0.1)):
            rows += [row(arm, "a_1", 0.4 + plus, label="RV"), row(arm, "a_1", 0.8 + plus, label="LV")]
            rows += [row(arm, "b_1", np.nan, label="RV", empty="both"), row(arm, "b_1", 0.6 + plus, label="LV")]
        found = patient_scores(frame(rows), ("stock",), "T", MEAN_LABEL, "dice")
        assert found.values[0, 0] == pytest.approx([0.6, 0.6])
        assert found.absent == 1

    def test_a_label_that_only_some_volumes_have_counts_as_much_as_the_others(self) -> None:
        rows = [row("stock", "a_1", 0.2, label="RV"), row("stock", "a_1", 0.6), row("stock", "a_2", 1.0)]
        rows.append(row("stock", "a_2", np.nan, label="RV", empty="both"))
        found = patient_scores(frame(rows), ("stock",), "T", MEAN_LABEL, "dice")
        # RV 0.2 and LV (0.6 + 1.0) / 2.
        assert found.values[0, 0] == pytest.approx([0.5])


class TestDifferences:
    def test_known_effect(self) -> None:
        found = differences(random_frame(effect=0.05)).loc[("LV", "dice")]
        assert found["low"] < 0.05 < found["high"]
        assert found["difference"] == pytest.approx(found["mean_arm"] - found["mean_baseline"])
        assert found["verdict"] == "better"
        assert found["p_holm"] >= found["p"]
        assert (found["patients"], found["better"] + found["worse"]) == (12, 12)

    def test_less_distance_is_better(self) -> None:
        found = differences(random_frame()).loc[("LV", "hausdorff95")]
        # The baseline's "distance" is its Dice here, below 1; the arm's is some 2.5.
        assert (found["verdict"], found["better"]) == ("worse", 0)

    @pytest.mark.parametrize("trainings", [1, 3])
    def test_order_of_rows_changes_nothing(self, trainings: int) -> None:
        scores = random_frame(trainings=trainings)
        shuffled = scores.sample(frac=1, random_state=1)
        first, second = differences(scores), differences(shuffled)
        pd.testing.assert_frame_equal(first, second.loc[first.index])

    @pytest.mark.parametrize("trainings", [1, 3])
    def test_a_volume_twice_does_not_narrow_the_interval(self, trainings: int) -> None:
        """A patient is one cluster, however many volumes it has."""
        once = random_frame(volumes=1, trainings=trainings)
        copies = [once.assign(case=once["case"] + f"_copy{i}") for i in range(10)]
        before, after = differences(once), differences(pd.concat([once, *copies], ignore_index=True))
        columns = ["difference", "low", "high", "p"]
        pd.testing.assert_frame_equal(before[columns], after[columns])
        assert list(before["patients"]) == list(after["patients"])

    def test_folds_of_several_seeds_are_the_unit(self) -> None:
        scores = random_folds([(seed, fold) for fold in (0, 1, 2) for seed in (0, 1)])
        matrix = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice").differences()
        by_fold = (matrix[:3] + matrix[3:]) / 2  # seed0_fold0, seed0_fold1, …
        found = differences(scores).loc[("LV", "dice")]
        assert (found["low"], found["high"]) == pytest.approx(interval(by_fold))
        assert (found["low"], found["high"]) != pytest.approx(interval(matrix))
        assert found["difference"] == pytest.approx(matrix.mean())
        assert found["trainings"] == 6

    def test_a_fold_without_some_seeds_counts_as_much(self) -> None:
        scores = random_folds([(0, 0), (1, 0), (0, 1)])
        matrix = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice").differences()
        by_fold = np.stack([(matrix[0] + matrix[2]) / 2, matrix[1]])
        found = differences(scores).loc[("LV", "dice")]
        assert found["difference"] == pytest.approx(found["mean_arm"] - found["mean_baseline"])
        assert found["difference"] == pytest.approx(by_fold.mean()) == pytest.approx((found["low"] + found["high"]) / 2)

    @pytest.mark.parametrize("trainings", [[(0, 3), (1, 3), (2, 3)], [(0, 0), (0, 1), (0, 2)], [(0, 0)]])
    def test_one_fold_or_one_seed_are_as_they_were(self, trainings: list[tuple[int, int]]) -> None:
        scores = random_folds(trainings)
        matrix = patient_scores(scores, ("stock", "sikd"), "T", "LV", "dice").differences()
        found = differences(scores).loc[("LV", "dice")]
        assert (found["low"], found["high"]) == interval(matrix)  # to the last bit
        assert found["difference"] == matrix.mean()

    def test_verdict_on_the_source_is_non_inferiority_of_dice_only(self) -> None:
        found = differences(random_frame(effect=0.0), source=["T"])["verdict"]
        assert found["LV", "dice"].startswith("non-inferior")
        assert "inferior" not in found["LV", "surface_dice"]

    def test_holm_counts_labels_and_test_sets_of_one_arm_and_no_means(self) -> None:
        scores = random_frame(effect=0.01)
        scores = pd.concat([scores, scores.assign(test="U")], ignore_index=True)
        more = scores[scores["arm"] == "sikd"].assign(arm="other")
        table = difference_table(pd.concat([scores, more]), "stock", ["sikd", "other"], [], 0.02)
        tested = table[(table["arm"] == "sikd") & table["p"].notna()]
        assert len(tested) == 4
        assert set(tested["label"]) == {"RV", "LV"}
        smallest = tested.sort_values("p").iloc[0]
        assert smallest["p_holm"] == pytest.approx(min(1, 4 * smallest["p"]))

    def test_an_arm_without_results_has_no_rows(self) -> None:
        scores = random_frame()
        assert difference_table(scores, "stock", ["other"], [], 0.02).empty
        assert difference_table(scores[scores["arm"] == "sikd"], "stock", ["sikd"], [], 0.02).empty


class TestSummary:
    def test_by_hand(self) -> None:
        scores = frame(
            row("stock", case, dice, training=training)
            for training, values in (("s0", (0.2, 0.4, 0.9)), ("s1", (0.4, 0.6, 0.7)))
            for case, dice in zip(("a_1", "a_2", "b_1"), values, strict=True)
        )
        table = summary_table(scores)
        found = table[table["metric"] == "dice"].iloc[0]
        # Patients a and b: 0.4 and 0.8 over both trainings; trainings: 0.6 (0.3, 0.9) and 0.6 (0.5, 0.7).
        assert found["mean"] == pytest.approx(0.6)
        assert found["sd_patients"] == pytest.approx(0.4 / np.sqrt(2))
        assert found["sd_trainings"] == pytest.approx(0.0, abs=1e-12)
        assert (found["patients"], found["trainings"]) == (2, 2)

    def test_one_label_has_no_mean_row(self) -> None:
        assert set(summary_table(frame([row("stock", "a", 0.5)]))["label"]) == {"LV"}

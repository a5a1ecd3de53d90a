"""The two tables of a benchmark: mean ± sd of each arm, and differences from the baseline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nnunetv2_sikd.report.intervals import independent, interval
from nnunetv2_sikd.report.pairing import MEAN_LABEL, PatientScores, labels_of, patient_scores
from nnunetv2_sikd.report.scores import METRICS, OVERLAP
from nnunetv2_sikd.report.significance import holm, non_inferiority, signed_rank_p, superiority

PRIMARY = "dice"
COMPARED = (PRIMARY, "surface_dice", "hausdorff95")
"""Metrics whose differences get an interval; the first is the one that is tested."""


def summary_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviations of every arm on every test set.

    Args:
        frame: As ``Scores.frame``.

    Returns:
        One row per test, label, arm and metric: ``mean`` over patients (each the mean of its volumes and trainings);
        ``sd_patients`` of those; ``sd_trainings`` of the trainings' means (nan for one training); ``median``;
        ``trainings``, ``patients``, and the volumes left out: ``absent``, ``unpaired``.
    """
    rows = []
    for test in dict.fromkeys(frame["test"]):
        arms = list(dict.fromkeys(frame.loc[frame["test"] == test, "arm"]))
        for label in labels_of(frame, test):
            for arm in arms:
                rows += [
                    _summarise(patient_scores(frame, (arm,), test, label, metric), test, label, metric)
                    for metric in METRICS
                ]
    return pd.DataFrame(rows)


def _summarise(scores: PatientScores, test: str, label: str, metric: str) -> dict[str, object]:
    values = scores.values[0]
    patients = values.mean(axis=0) if values.size else np.array([])
    trainings = values.mean(axis=1) if values.size else np.array([])
    return {
        "test": test,
        "label": label,
        "arm": scores.arms[0],
        "metric": metric,
        "mean": patients.mean() if patients.size else np.nan,
        "sd_patients": patients.std(ddof=1) if patients.size > 1 else np.nan,
        "sd_trainings": trainings.std(ddof=1) if trainings.size > 1 else np.nan,
        "median": float(np.median(patients)) if patients.size else np.nan,
        "trainings": len(scores.trainings),
        "patients": len(scores.patients),
        "absent": scores.absent,
        "unpaired": scores.unpaired,
    }


def difference_table(
    frame: pd.DataFrame, baseline: str, arms: Sequence[str], source_tests: Sequence[str], margin: float
) -> pd.DataFrame:
    """Differences arm minus baseline, paired by seed, fold and volume.

    Args:
        frame: As ``Scores.frame``.
        baseline: Key of the arm that the others are compared with.
        arms: The others.
        source_tests: Keys of the training data set's own test sets: there the verdict on Dice is non-inferiority.
        margin: Of non-inferiority, in Dice.

    Returns:
        One row per arm, test, label and metric of ``COMPARED``: means, ``difference``, ``low`` and ``high`` of its
        interval, ``p`` (Wilcoxon over patients' means, Dice of single labels only), ``p_holm`` (across labels and test
        sets of an arm), ``verdict``, counts of better and worse patients, and what was left out. Of several folds
        each counts alike, however many seeds it has.
    """
    rows = [
        row
        for arm in arms
        for row in _compare(frame, baseline, arm, source_tests, margin)
        if arm in set(frame["arm"]) and baseline in set(frame["arm"])
    ]
    columns = [*_COLUMNS, "p_holm", "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    for arm in dict.fromkeys(table["arm"]):
        chosen = table["arm"] == arm
        table.loc[chosen, "p_holm"] = holm(list(table.loc[chosen, "p"].astype(float)))
    return table


_COLUMNS = (
    *("arm", "baseline", "test", "label", "metric", "mean_baseline", "mean_arm", "difference", "low", "high", "p"),
    *("patients", "better", "worse", "trainings", "absent", "unpaired"),
)


def _compare(
    frame: pd.DataFrame, baseline: str, arm: str, source_tests: Sequence[str], margin: float
) -> list[dict[str, object]]:
    rows = []
    folds = dict(zip(frame["training"], frame["fold"], strict=True))
    for test in dict.fromkeys(frame["test"]):
        there = set(frame.loc[frame["test"] == test, "arm"])
        for label in labels_of(frame, test) if {arm, baseline} <= there else []:
            for metric in COMPARED:
                scores = patient_scores(frame, (baseline, arm), test, label, metric)
                of_trainings = [folds[training] for training in scores.trainings]
                of_baseline, of_arm = independent(scores.values, of_trainings)
                differences = of_arm - of_baseline
                if not differences.size:
                    continue
                low, high = interval(differences)
                by_patient = np.round(differences.mean(axis=0), 12)
                higher_is_better = metric in OVERLAP
                better, worse = int((by_patient > 0).sum()), int((by_patient < 0).sum())
                tested = metric == PRIMARY and label != MEAN_LABEL
                if metric == PRIMARY and test in source_tests:
                    verdict = non_inferiority(low, high, margin)
                else:
                    verdict = superiority(low, high, higher_is_better=higher_is_better)
                rows.append(
                    {
                        "arm": arm,
                        "baseline": baseline,
                        "test": test,
                        "label": label,
                        "metric": metric,
                        "mean_baseline": float(of_baseline.mean()),
                        "mean_arm": float(of_arm.mean()),
                        "difference": float(differences.mean()),
                        "low": low,
                        "high": high,
                        "p": signed_rank_p(by_patient) if tested else np.nan,
                        "patients": len(scores.patients),
                        "better": better if higher_is_better else worse,
                        "worse": worse if higher_is_better else better,
                        "trainings": len(scores.trainings),
                        "absent": scores.absent,
                        "unpaired": scores.unpaired,
                        "p_holm": np.nan,
                        "verdict": verdict,
                    }
                )
    return rows

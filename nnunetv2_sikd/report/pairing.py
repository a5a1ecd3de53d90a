"""Scores of arms on the same patients: the trainings × patients matrices that all statistics are made from.

Patients are the unit: several volumes of one patient are averaged first, so repeating a volume adds nothing.
Which volumes count for a label is decided by the reference alone, so it is the same for all arms: a volume whose
reference lacks the label has no Dice, and is left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MEAN_LABEL = "mean over labels"
"""In place of a label: each patient's mean over the labels that the patient's references have."""


@dataclass(frozen=True)
class PatientScores:
    """One metric of one label on one test set.

    Attributes:
        arms: In the order of the first axis of ``values``.
        trainings: Seeds and folds that all the arms have.
        patients: Sorted.
        values: Mean over each patient's volumes. Shape ``(arms, trainings, patients)``, without nan.
        absent: Volumes left out because the reference lacks the label.
        unpaired: Volumes left out because an arm or training has no value for them.
    """

    arms: tuple[str, ...]
    trainings: tuple[str, ...]
    patients: tuple[str, ...]
    values: NDArray[np.float64]
    absent: int
    unpaired: int

    def differences(self) -> NDArray[np.float64]:
        """Second arm minus first. Shape ``(trainings, patients)``."""
        difference: NDArray[np.float64] = self.values[1] - self.values[0]
        return difference


def patient_scores(frame: pd.DataFrame, arms: tuple[str, ...], test: str, label: str, metric: str) -> PatientScores:
    """Arrange the scores of some arms by training and patient.

    Args:
        frame: As ``Scores.frame``.
        arms: One arm, or several to be compared: then only trainings and volumes count that all of them have.
        test: Key of the test set.
        label: A label, or ``MEAN_LABEL``.
        metric: Column.

    Returns:
        The arranged scores; without trainings or patients if the arms share none.
    """
    rows = frame[(frame["test"] == test) & frame["arm"].isin(arms)]
    if label == MEAN_LABEL:
        shared = set.intersection(*(set(rows.loc[rows["arm"] == arm, "label"]) for arm in arms))
        rows = rows[rows["label"].isin(shared)]
    else:
        rows = rows[rows["label"] == label]
    trainings = sorted(set.intersection(*(set(rows.loc[rows["arm"] == arm, "training"]) for arm in arms)))
    rows = rows[rows["training"].isin(trainings)]
    volumes = ["patient", "case", "label"]
    annotated = ~rows["empty"].isin(["reference", "both"])
    absent = len(rows.loc[~annotated, volumes].drop_duplicates())
    rows = rows[annotated]
    if rows.empty:
        return PatientScores(arms, (), (), np.empty((len(arms), 0, 0)), absent, 0)
    table = rows.pivot(index=["arm", "training"], columns=volumes, values=metric)
    table = table.reindex(pd.MultiIndex.from_product([arms, trainings]))
    there = table.notna().all(axis=0)
    unpaired = int((~there).sum())
    # First over a patient's volumes of each label, then over the labels.
    means = table.loc[:, there].T.groupby(level=["patient", "label"]).mean().groupby(level="patient").mean()
    patients = tuple(str(patient) for patient in means.index)
    values = means.T.to_numpy(dtype=float).reshape(len(arms), len(trainings), len(patients))
    return PatientScores(arms, tuple(trainings), patients, values, absent, unpaired)


def labels_of(frame: pd.DataFrame, test: str, *, with_mean: bool = True) -> list[str]:
    """Labels of a test set in the order of its files, and the mean over them if there are several."""
    labels = list(dict.fromkeys(frame.loc[frame["test"] == test, "label"]))
    return [*labels, MEAN_LABEL] if with_mean and len(labels) > 1 else labels

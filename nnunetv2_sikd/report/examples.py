"""Which cases the report shows: the worst, the median and the best difference, and nothing by taste."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunetv2_sikd.benchmark.specification import TestSet, Training
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import PRIMARY


@dataclass(frozen=True)
class Example:
    """A case to show.

    Attributes:
        rank: ``worst``, ``median`` or ``best`` difference in Dice.
        test: Its test set.
        case: Its name.
        baseline: Training of the baseline.
        arm: Training of the shown arm, of the same seed and fold.
        dice: Mean Dice over the labels that the reference has, of baseline and arm.
    """

    rank: str
    test: TestSet
    case: str
    baseline: Training
    arm: Training
    dice: tuple[float, float]


def choose_examples(results: Results) -> list[Example]:
    """For each test set the cases of the smallest, the median and the largest difference in the first training."""
    return [example for test in results.tests for example in _of_test(results, test)]


def _of_test(results: Results, test: TestSet) -> list[Example]:
    if results.shown is None:
        return []
    arms = (results.specification.baseline, results.shown)
    pairs = _pairs(results, arms)
    for baseline, arm in pairs:
        dice = case_dice(results.frame, test.key, baseline, arm)
        if len(dice):
            break
    else:
        return []
    ordered = dice.assign(difference=(dice["arm"] - dice["baseline"]).round(12)).reset_index()
    ordered = ordered.sort_values(["difference", "case"], ignore_index=True)
    places = {"worst": 0, "median": (len(ordered) - 1) // 2, "best": len(ordered) - 1}
    return [
        Example(rank, test, str(row["case"]), baseline, arm, (float(row["baseline"]), float(row["arm"])))
        for rank, place in places.items()
        for row in [ordered.iloc[place]]
        if place not in [other for name, other in places.items() if list(places).index(name) < list(places).index(rank)]
    ]


def case_dice(frame: pd.DataFrame, test: str, baseline: Training, arm: Training) -> pd.DataFrame:
    """Mean Dice of each case over the labels that its reference has: columns ``baseline`` and ``arm``, by case."""
    found = {}
    for name, training in (("baseline", baseline), ("arm", arm)):
        seed = frame["seed"].isna() if training.seed is None else frame["seed"] == training.seed
        chosen = (frame["test"] == test) & (frame["arm"] == training.arm) & (frame["fold"] == training.fold)
        annotated = frame["empty"].isin(["none", "prediction"])
        rows = frame[chosen & seed.fillna(False).astype(bool) & annotated]
        found[name] = rows.groupby("case")[PRIMARY].mean()
    return pd.DataFrame(found).replace([np.inf], np.nan).dropna()


def _pairs(results: Results, arms: tuple[str, str]) -> list[tuple[Training, Training]]:
    trainings = list(results.specification.trainings())
    of = {(each.arm, each.seed, each.fold): each for each in trainings}
    return [
        (each, other)
        for each in trainings
        if each.arm == arms[0] and (other := of.get((arms[1], each.seed, each.fold))) is not None
    ]

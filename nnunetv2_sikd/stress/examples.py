"""A picture of what trainers find in one validation case under the strongest shifts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from nnunetv2_sikd.figures.cases import choose_slice, class_names
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.stress.predict import RawCase, dice_by_label, preprocessed, segmented
from nnunetv2_sikd.stress.scores import Score, by_seed, mean_dice, under_shift
from nnunetv2_sikd.stress.shifts import SHIFTS, Shift
from nnunetv2_sikd.stress.show import Example, draw_views


def one_of_each(trainers: Iterable[str]) -> list[str]:
    """The first of the trainers that differ in their seed alone."""
    return [next(iter(group.values())) for group in by_seed(trainers).values()]


def median_case(scores: Iterable[Score], cases: Sequence[str]) -> str:
    """The case of median Dice (of two the lower), of all trainers and under all shifts but class levels.

    So nobody chooses which case is shown.

    Args:
        scores: Of any trainers; those that lack a case do not count.
        cases: To choose from; the first, if none has a Dice.
    """
    dice = mean_dice(score for score in scores if score.case in cases)
    found = [under_shift(each) for each in dice.values()]
    most = max((len(each) for each in found), default=0)
    found = [each for each in found if len(each) == most]
    common = sorted(set.intersection(*(set(each) for each in found))) if found else []
    ranked = sorted(common, key=lambda case: float(np.mean([each[case] for each in found])))
    return ranked[(len(ranked) - 1) // 2] if ranked else cases[0]


def draw_examples(
    planned: PlannedConfiguration,
    raw: RawCase,
    networks: Mapping[str, nnUNetPredictor],
    file: Path,
    title: str,
) -> Path:
    """Predict a case as it is and under each shift at its strongest, and draw one slice of it.

    Args:
        planned: Data set and configuration.
        raw: The case.
        networks: By name of the trainer.
        file: Where to.
        title: Of the picture, to which the slice is added.
    """
    steps: list[Shift | None] = [None, *SHIFTS]
    shown: int | None = None
    views = []
    for shift in tqdm(steps, desc=f"Examples: {raw.name}", unit="image", leave=False):
        image, reference = preprocessed(planned, raw, shift, 1.0)
        if shown is None:
            shown = choose_slice(reference, planned.label_manager.ignore_label)
        found = {}
        for name, network in networks.items():
            prediction = segmented(planned, network, image)
            dice = [each for each in dice_by_label(planned, reference, prediction).values() if not np.isnan(each)]
            found[name] = (prediction[shown].copy(), float(np.mean(dice)) if dice else float("nan"))
        named = "no shift" if shift is None else shift.title.lower()
        # Copies: a slice that is none would keep its volume until all are drawn.
        views.append(Example(named, image[0, shown].copy(), reference[shown].copy(), found))
    return draw_views(views, class_names(planned), f"{title}; slice {shown}", file)

"""All metrics of a benchmark in one tidy table, and what is missing from it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep, Machine, plan_steps
from nnunetv2_sikd.benchmark.run import is_of_these_settings
from nnunetv2_sikd.benchmark.specification import TestSet, Training
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.untrusted import from_cell

OVERLAP = ("dice", "iou", "surface_dice")
DISTANCES = ("hausdorff", "hausdorff95", "average_surface_distance")
METRICS = (*OVERLAP, *DISTANCES)
KEYS = ("arm", "seed", "fold", "training", "test", "label", "case", "patient", "empty", "unit")
_VOLUMES = ("volume_reference", "volume_prediction")
_NEEDED = ("case", "label", "empty", "unit", *METRICS, *_VOLUMES)


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        frame: One row per arm, training, test set, case and label: columns ``KEYS``, the metrics and the volumes.
            ``training`` names seed and fold: what is paired across arms.
        missing: Pairs of test set and training without results, or with those of other settings.
    """

    frame: pd.DataFrame
    missing: tuple[tuple[TestSet, Training], ...]


def read_scores(layout: Layout) -> Scores:
    """Read every ``metrics.csv`` of a benchmark.

    But those that the benchmark has predicted or evaluated with other settings (trainer, schedule, tolerance, ...), or
    is about to make anew: they would go by the names that its file has now.

    Args:
        layout: The benchmark's files.

    Raises:
        SIKDError: There is none, or one is damaged.
    """
    frames, missing = [], []
    steps = _steps(layout)
    for test in layout.specification.tests:
        for training in layout.specification.trainings():
            file = layout.evaluation(test, training) / "metrics.csv"
            names = [f"{kind}_{test.key}_{training.key}" for kind in ("predict", "evaluate")]
            made = [steps[name] for name in names if name in steps]
            if os.path.lexists(file) and all(is_of_these_settings(step, list(steps.values()), layout) for step in made):
                frames.append(_read(file, test, training))
            else:
                missing.append((test, training))
    if not frames:
        raise SIKDError(
            f"{layout.output / 'evaluation'}: no metrics.csv of this benchmark's {len(missing)} trainings × test sets; "
            "run nnUNetv2_sikd benchmark first, or name its folder with -o"
        )
    return Scores(pd.concat(frames, ignore_index=True), tuple(missing))


def _steps(layout: Layout) -> dict[str, BenchmarkStep]:
    """The benchmark's steps by name; none where it was not run there, or its data sets are not there."""
    if not layout.record("prepare").is_file():
        return {}
    try:
        return {step.name: step for step in plan_steps(layout, layout.file, Machine())}
    except SIKDError:
        return {}


def training_key(seed: int | None, fold: int) -> str:
    """Name of a seed and fold, equal for all arms: ``seed0_fold0``."""
    return f"fold{fold}" if seed is None else f"seed{seed}_fold{fold}"


def _read(file: Path, test: TestSet, training: Training) -> pd.DataFrame:
    try:
        # "none" says that no mask is empty, and a label may be called NA: only metrics may be missing.
        table = pd.read_csv(
            file, dtype={"case": str, "label": str, "empty": str, "unit": str}, keep_default_na=False, na_values="nan"
        )
    except (OSError, ValueError) as error:
        raise _damaged(file, " ".join(str(error).split())) from error
    absent = [name for name in _NEEDED if name not in table.columns]
    if absent:
        raise _damaged(file, f"has no column {', '.join(absent)}")
    if table.empty:
        raise _damaged(file, "has no rows")
    for name in (*METRICS, *_VOLUMES):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise _damaged(file, f"column {name} holds something that is no number")
    unknown = set(table["empty"]) - {"none", "reference", "prediction", "both"}
    if unknown:
        raise _damaged(file, f"column empty holds {sorted(unknown)[0]!r}")
    for name in ("case", "label"):
        table[name] = table[name].map(from_cell)
    for name, most in (*((name, 1) for name in OVERLAP), *((name, float("inf")) for name in (*DISTANCES, *_VOLUMES))):
        if ((table[name] < 0) | (table[name] > most) | (table[name] == float("inf"))).any():
            raise _damaged(file, f"column {name} holds a number that cannot be")
    twice = table.duplicated(["case", "label"])
    if twice.any():
        raise _damaged(file, f"has case {table['case'][twice].iloc[0]} twice for one label")
    table = table[list(_NEEDED)].copy()
    table["arm"] = training.arm
    table["seed"] = pd.Series([training.seed] * len(table), dtype="Int64")
    table["fold"] = training.fold
    table["training"] = training_key(training.seed, training.fold)
    table["test"] = test.key
    table["patient"] = [test.patient_of(case) for case in table["case"]]
    return table[[*KEYS, *METRICS, *_VOLUMES]]


def _damaged(file: Path, why: str) -> SIKDError:
    return SIKDError(f"{file}: {why}; run nnUNetv2_sikd evaluate again for it")

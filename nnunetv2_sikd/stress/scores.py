"""Scores under simulated shifts, and their summary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.stress.shifts import SHIFTS
from nnunetv2_sikd.untrusted import from_cell

SUMMARISED = tuple(shift.name for shift in SHIFTS if shift.name != "class_levels")
"""Shifts that count in the summary: class levels are what class jitter trains on."""

PatientOf = Callable[[str], str]
Values = Callable[[Sequence["Score"], str], dict[str, float]]

_SEED = re.compile("_seed([0-9]+)")


@dataclass(frozen=True)
class Score:
    """Dice of one prediction.

    Attributes:
        trainer: Who made the network.
        case: Validation case.
        shift: Name of the shift, empty without.
        severity: Step, 0 without a shift.
        label: Name of the class or region.
        dice: 0 to 1; nan where reference and prediction lack the label.
    """

    trainer: str
    case: str
    shift: str
    severity: int
    label: str
    dice: float

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> Score:
        """Read a row.

        Raises:
            KeyError: A column is missing.
            ValueError: A number is none.
        """
        dice = float(row["dice"] or "nan")
        case, label = (from_cell(row[key]) for key in ("case", "label"))
        return cls(row["trainer"], case, row["shift"], int(row["severity"]), label, dice)


def mean_dice(scores: Iterable[Score]) -> dict[tuple[str, str, str, int], float]:
    """Mean Dice over the labels by trainer, case, shift and severity; without those of which there is none."""
    found: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for score in scores:
        if not np.isnan(score.dice):
            found[score.trainer, score.case, score.shift, score.severity].append(score.dice)
    return {key: float(np.mean(values)) for key, values in found.items()}


def curves(scores: Iterable[Score], trainer: str) -> dict[str, NDArray[np.float64]]:
    """Mean Dice over cases by shift, from severity 0 on; key ``""`` holds the mean over the shifts of the summary."""
    values = {key[1:]: dice for key, dice in mean_dice(scores).items() if key[0] == trainer}
    most = max((severity for _, _, severity in values), default=0)

    def mean(shift: str, severity: int) -> float:
        found = [
            dice
            for (_, which, step), dice in values.items()
            if step == severity and which == (shift if severity else "")
        ]
        return float(np.mean(found)) if found else float("nan")

    by_shift = {shift.name: np.array([mean(shift.name, step) for step in range(most + 1)]) for shift in SHIFTS}
    return {"": np.mean([by_shift[name] for name in SUMMARISED], axis=0), **by_shift}


def without_shift(scores: Iterable[Score], trainer: str) -> dict[str, float]:
    """Mean Dice of each case as it is."""
    return {case: dice for (name, case, shift, _), dice in mean_dice(scores).items() if name == trainer and not shift}


def under_shift(scores: Iterable[Score], trainer: str, shifts: Collection[str] = SUMMARISED) -> dict[str, float]:
    """Mean Dice of each case over some shifts and their severities, all those of the summary unless told."""
    found: dict[str, list[float]] = defaultdict(list)
    for (name, case, shift, _), dice in mean_dice(scores).items():
        if name == trainer and shift in shifts:
            found[case].append(dice)
    return {case: float(np.mean(values)) for case, values in found.items()}


def by_seed(trainers: Iterable[str]) -> dict[str, dict[str, str]]:
    """Trainers that differ in their seed alone, under the name they share.

    Returns:
        By that name, in the order given: trainers by seed (empty for one without).
    """
    groups: dict[str, dict[str, str]] = {}
    for trainer in trainers:
        seed = _SEED.search(trainer)
        groups.setdefault(_SEED.sub("", trainer, count=1), {})[seed[1] if seed else ""] = trainer
    return groups


def summary_table(scores: Sequence[Score], trainers: Sequence[str], patient: PatientOf = str) -> str:
    """Markdown: mean Dice without shift and under each (mean over severities), and the differences to the first.

    Trainers that differ in their seed alone make one row. Differences are those of the same seed and patient.

    Args:
        scores: Of all trainers.
        trainers: Names in the order of the rows.
        patient: Who a case is of; each case is another patient unless told.
    """
    groups = by_seed(trainers)
    first, *others = groups
    titles = [shift.title.lower() for shift in SHIFTS]
    means = []
    for title, group in groups.items():
        found = mean_curves(scores, group.values())
        values = [found[""][0], *(found[shift.name][1:].mean() for shift in SHIFTS), found[""][1:].mean()]
        means.append([_row_title(title, group), *(f"{value:.3f}" for value in values)])
    lines = _table(["mean Dice", "no shift", *titles, "all but class levels"], means)
    if others:
        columns: list[Values] = [
            without_shift,
            *(partial(under_shift, shifts=(shift.name,)) for shift in SHIFTS),
            under_shift,
        ]
        rows = [
            [
                _row_title(title, groups[title]),
                *(_difference(scores, groups[first], groups[title], values, patient) for values in columns),
            ]
            for title in others
        ]
        lines += ["", *_table(["minus the first's", "no shift", *titles, "all but class levels"], rows)]
    cases = {score.case for score in scores}
    patients = {patient(case) for case in cases}
    of = f" of {len(patients)} patients" if len(patients) < len(cases) else ""
    lines += [
        "",
        f"{len(cases)} validation cases{of}, under each shift over its severities. Intervals: 95 %, over "
        "trainings of the same seeds and over patients; where there is one training, over patients alone, and another "
        "seed's training can differ by more.",
    ]
    return "\n".join(lines) + "\n"


def _row_title(title: str, group: Mapping[str, str]) -> str:
    return f"{title} ({len(group)} seeds)" if len(group) > 1 else next(iter(group.values()))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def mean_curves(scores: Sequence[Score], trainers: Iterable[str]) -> dict[str, NDArray[np.float64]]:
    """Mean of the :func:`curves` of several trainers."""
    each = [curves(scores, trainer) for trainer in trainers]
    return {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}


def _difference(
    scores: Sequence[Score],
    first: Mapping[str, str],
    group: Mapping[str, str],
    values: Values,
    patient: PatientOf,
) -> str:
    """Mean difference of a group to the first with its interval; empty where no seed or no case is common."""
    # One training each is a pair whatever the names say.
    pairs = [(first[seed], group[seed]) for seed in group if seed in first]
    if len(first) == len(group) == 1:
        pairs = [(next(iter(first.values())), next(iter(group.values())))]
    found = [(values(scores, one), values(scores, other)) for one, other in pairs]
    of_patient: dict[str, list[str]] = defaultdict(list)
    for case in sorted(set.intersection(*(one.keys() & other.keys() for one, other in found))) if found else ():
        of_patient[patient(case)].append(case)
    if not of_patient:
        return ""
    differences = np.array(
        [
            [np.mean([other[case] - one[case] for case in cases]) for cases in of_patient.values()]
            for one, other in found
        ]
    )
    low, high = interval(differences)
    told = f"{differences.mean():+.3f}"
    return told + (f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else "")

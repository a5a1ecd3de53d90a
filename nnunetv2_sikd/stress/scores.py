"""Scores under simulated shifts, and their summary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunetv2_sikd.report.intervals import ENOUGH_PATIENTS, interval
from nnunetv2_sikd.stress.shifts import SHIFTS
from nnunetv2_sikd.untrusted import from_cell

SUMMARISED = tuple(shift.name for shift in SHIFTS if shift.name != "class_levels")
"""Shifts that count in the summary: class levels are what class jitter trains on."""

PatientOf = Callable[[str], str]
Dice = Mapping[tuple[str, str, int], float]
"""Mean Dice of a trainer by patient, shift and severity."""

COLUMNS: Mapping[str, tuple[str, ...] | None] = {
    "no shift": None,
    **{shift.title.lower(): (shift.name,) for shift in SHIFTS},
    "all but class levels": SUMMARISED,
}
"""What is compared: the shifts that are averaged, by title; None for images as they are."""

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
        dice: 0 to 1; nan where the reference lacks the label.
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


class Difference(NamedTuple):
    """A mean difference of Dice and its 95 % interval; nan where there is none."""

    mean: float
    low: float
    high: float


def mean_dice(scores: Iterable[Score], patient: PatientOf = str) -> dict[str, Dice]:
    """Mean Dice over the labels of a case and the cases of a patient, without labels of which there is none.

    Args:
        scores: Of any trainers.
        patient: Who a case is of; each case is another patient unless told.

    Returns:
        By trainer: by patient, shift and severity.
    """
    cases: dict[tuple[str, str, str, int], list[float]] = defaultdict(list)
    for score in scores:
        if not np.isnan(score.dice):
            cases[score.trainer, score.case, score.shift, score.severity].append(score.dice)
    patients: dict[str, dict[tuple[str, str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for (trainer, case, shift, severity), values in cases.items():
        patients[trainer][patient(case), shift, severity].append(float(np.mean(values)))
    return {trainer: {key: float(np.mean(each)) for key, each in found.items()} for trainer, found in patients.items()}


def curves(dice: Dice) -> dict[str, NDArray[np.float64]]:
    """Mean Dice over patients by shift, from severity 0 on; key ``""`` holds the mean over the shifts of the summary.

    Args:
        dice: A trainer's :func:`mean_dice`.
    """
    most = max((severity for _, _, severity in dice), default=0)
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for (_, shift, severity), value in dice.items():
        values[shift, severity].append(value)

    def mean(shift: str, severity: int) -> float:
        found = values.get((shift if severity else "", severity))
        return float(np.mean(found)) if found else float("nan")

    by_shift = {shift.name: np.array([mean(shift.name, step) for step in range(most + 1)]) for shift in SHIFTS}
    return {"": np.mean([by_shift[name] for name in SUMMARISED], axis=0), **by_shift}


def without_shift(dice: Dice) -> dict[str, float]:
    """Mean Dice of each patient as it is."""
    return {patient: value for (patient, shift, _), value in dice.items() if not shift}


def under_shift(dice: Dice, shifts: Collection[str] = SUMMARISED) -> dict[str, float]:
    """Mean Dice of each patient over some shifts and their severities, all those of the summary unless told."""
    found: dict[str, list[float]] = defaultdict(list)
    for (patient, shift, _), value in dice.items():
        if shift in shifts:
            found[patient].append(value)
    return {patient: float(np.mean(values)) for patient, values in found.items()}


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


def summary_table(scores: Sequence[Score], trainers: Sequence[str], patient: PatientOf | None = None) -> str:
    """Markdown: mean Dice without shift and under each (mean over severities), and the differences to the first.

    Trainers that differ in their seed alone make one row. Differences are those of the same seed and patient.

    Args:
        scores: Of all trainers.
        trainers: Names in the order of the rows.
        patient: Who a case is of; None if nobody told, and each case is taken for another patient.
    """
    dice = mean_dice(scores, patient or str)
    groups = by_seed(trainers)
    rows = []
    for title, group in groups.items():
        found = mean_curves([dice[trainer] for trainer in group.values()])
        values = [found[""][0], *(found[shift.name][1:].mean() for shift in SHIFTS), found[""][1:].mean()]
        rows.append([title_of(title, group), *(f"{value:.3f}" for value in values)])
    lines = _table(["mean Dice", *COLUMNS], rows)
    if len(groups) > 1:
        compared = differences(dice, trainers)
        rows = [[title, *(_told(found.get(column)) for column in COLUMNS)] for title, found in compared.items()]
        lines += ["", *_table(["minus the first's", *COLUMNS], rows)]
    return "\n".join([*lines, "", _footnote(scores, patient)]) + "\n"


def differences(dice: Mapping[str, Dice], trainers: Sequence[str]) -> dict[str, dict[str, Difference]]:
    """Differences of Dice to the first trainer, of the same seeds and patients.

    Args:
        dice: :func:`mean_dice` of all trainers.
        trainers: Names; those that differ in their seed alone are compared together.

    Returns:
        By title of the trainers and of :data:`COLUMNS`; a column is missing where no seed or no patient is common.
    """
    groups = by_seed(trainers)
    first, *others = groups
    result: dict[str, dict[str, Difference]] = {}
    for title in others:
        pairs = _pairs(groups[first], groups[title])
        paired = {seed: other for seed, other in groups[title].items() if other in {each for _, each in pairs}}
        found = result[title_of(title, paired or groups[title])] = {}
        for column, shifts in COLUMNS.items():
            values = without_shift if shifts is None else partial(under_shift, shifts=shifts)
            difference = _difference([(values(dice[one]), values(dice[other])) for one, other in pairs])
            if difference is not None:
                found[column] = difference
    return result


def _footnote(scores: Sequence[Score], patient: PatientOf | None) -> str:
    cases = {score.case for score in scores}
    patients = {patient(case) for case in cases} if patient else cases
    who = f"{len(cases)} validation cases of {len(patients)} patients"
    if patient is None:
        who = f"{len(cases)} validation cases, each counted as a patient of its own"
    few = f"; with fewer than {ENOUGH_PATIENTS} they are somewhat too narrow" if len(patients) < ENOUGH_PATIENTS else ""
    return (
        f"{who}, under each shift over its severities. Intervals: 95 %, over trainings of the same seeds and over "
        "patients; where there is one training, over patients alone, and another seed's training can differ by more"
        f"{few}. Of this many intervals some leave 0 out by chance. Class jitter, class contrast and "
        "class variation train on other class levels, the last two also on what comes near an inverted contrast."
    )


def title_of(name: str, group: Mapping[str, str]) -> str:
    """What trainers that differ in their seed alone are called together.

    Args:
        name: What they share.
        group: The trainers by seed (:func:`by_seed`).
    """
    return f"{name} ({len(group)} seeds)" if len(group) > 1 else next(iter(group.values()))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def mean_curves(dice: Iterable[Dice]) -> dict[str, NDArray[np.float64]]:
    """Mean of the :func:`curves` of several trainers."""
    each = [curves(one) for one in dice]
    return {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}


def _pairs(first: Mapping[str, str], group: Mapping[str, str]) -> list[tuple[str, str]]:
    """Trainers of the same seed; one training each is a pair whatever the names say."""
    if len(first) == len(group) == 1:
        return [(next(iter(first.values())), next(iter(group.values())))]
    return [(first[seed], group[seed]) for seed in group if seed in first]


def _difference(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> Difference | None:
    """Mean difference with its interval; None where no seed or no patient is common."""
    patients = sorted(set.intersection(*(one.keys() & other.keys() for one, other in pairs))) if pairs else []
    if not patients:
        return None
    each = np.array([[other[patient] - one[patient] for patient in patients] for one, other in pairs])
    return Difference(float(each.mean()), *interval(each))


def _told(difference: Difference | None) -> str:
    if difference is None:
        return ""
    told = f"{difference.mean:+.3f}"
    known = np.isfinite(difference.low)
    return told + (f" ({difference.low:+.3f} to {difference.high:+.3f})" if known else "")

"""Scores under simulated shifts, and their summary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.stress.shifts import SHIFTS
from nnunetv2_sikd.untrusted import from_cell

SUMMARISED = tuple(shift.name for shift in SHIFTS if shift.name != "class_levels")
"""Shifts that count in the summary: class levels are what class jitter trains on."""


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


def under_shift(scores: Iterable[Score], trainer: str) -> dict[str, float]:
    """Mean Dice over the shifts of the summary and their severities of each case."""
    found: dict[str, list[float]] = defaultdict(list)
    for (name, case, shift, _), dice in mean_dice(scores).items():
        if name == trainer and shift in SUMMARISED:
            found[case].append(dice)
    return {case: float(np.mean(values)) for case, values in found.items()}


def summary_table(scores: Sequence[Score], trainers: Sequence[str]) -> str:
    """Markdown: mean Dice without shift and under each (mean over severities), and the difference to the first trainer.

    Args:
        scores: Of all trainers.
        trainers: Names in the order of the rows.
    """
    first = under_shift(scores, trainers[0])
    header = [
        "trainer",
        "no shift",
        *(shift.title.lower() for shift in SHIFTS),
        "all but class levels",
        "minus the first's",
    ]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for trainer in trainers:
        found, mine = curves(scores, trainer), under_shift(scores, trainer)
        cells = [f"{found[''][0]:.3f}", *(f"{found[shift.name][1:].mean():.3f}" for shift in SHIFTS)]
        cells.append(f"{found[''][1:].mean():.3f}")
        both = sorted(first.keys() & mine.keys())
        difference = np.array([mine[case] - first[case] for case in both])
        low, high = interval(difference[None])
        told = f"{difference.mean():+.3f}" if len(both) else ""
        told += f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else ""
        cells.append("" if trainer == trainers[0] else told)
        lines.append(f"| {trainer} | " + " | ".join(cells) + " |")
    cases = len({score.case for score in scores})
    lines += [
        "",
        f"Mean Dice of {cases} validation cases, under each shift over its severities. Interval: 95 %, over cases, "
        "of this one training; another seed's training can differ by more.",
    ]
    return "\n".join(lines) + "\n"

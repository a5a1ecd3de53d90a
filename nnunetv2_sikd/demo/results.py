"""Dice of the demonstration's predictions, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_sikd.demo.dataset import LABELS

STRUCTURES = {name: value for name, value in LABELS.items() if value}

_REMARK = """\
Mean Dice over the test cases. One fold, one training of each network, minutes long, on synthetic images:
this shows that the whole chain works on this machine. It cannot show which of the two is better in general;
nnU-Net draws its random numbers anew each time, and whatever came out is what stands here. A comparison
that can show it needs real data, full trainings and several seeds.
"""


@dataclass(frozen=True)
class DomainDice:
    """Mean Dice of each structure on the test cases of one data set.

    Attributes:
        title: The data set, in plain words.
        stock: Of the stock network.
        student: Of the student.
    """

    title: str
    stock: Mapping[str, float]
    student: Mapping[str, float]


def mean_dice(reference: Path, prediction: Path) -> dict[str, float]:
    """Mean Dice over the cases of a folder, of each structure (0 to 1).

    As in nnU-Net, a case whose reference and prediction both lack a structure does not count for it.

    Args:
        reference: Folder of the reference labels.
        prediction: Folder of the predictions, under the same file names.
    """
    dice = [case_dice(file, prediction / file.name) for file in sorted(reference.glob("*.nii.gz"))]
    return {name: float(np.nanmean([case[name] for case in dice])) for name in STRUCTURES}


def case_dice(reference: Path, prediction: Path) -> dict[str, float]:
    """nnU-Net's Dice of each structure of one case (0 to 1); nan where neither file has it."""
    # Case by case, since nnU-Net's own loop over a folder starts processes that take longer to import it.
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    found = compute_metrics(str(reference), str(prediction), SimpleITKIO(), list(STRUCTURES.values()))["metrics"]
    return {name: float(found[value]["Dice"]) for name, value in STRUCTURES.items()}


def report(domains: Sequence[DomainDice]) -> str:
    """All Dice values in one table (Markdown that reads well in a terminal) and what they cannot show."""
    rows = [["Test cases", "Structure", "Stock", "Student", "Difference"]]
    for domain in domains:
        for name in STRUCTURES:
            rows.append(_row(domain.title, name, domain.stock[name], domain.student[name]))
        means = [sum(dice.values()) / len(STRUCTURES) for dice in (domain.stock, domain.student)]
        rows.append(_row(domain.title, "**mean**", *means))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(_padded(row, widths))} |" for row in rows]
    rule = _padded(["-" * width for width in widths[:2]] + ["-" * (width - 1) + ":" for width in widths[2:]], widths)
    lines.insert(1, f"| {' | '.join(rule)} |")
    return "\n".join(lines) + "\n\n" + _REMARK


def _row(title: str, structure: str, stock: float, student: float) -> list[str]:
    return [title, structure, f"{stock:.3f}", f"{student:.3f}", f"{student - stock:+.3f}"]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]

"""What training and prediction cost, from the records beside checkpoints and predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import Training
from nnunetv2_sikd.prediction import COST_FILE as PREDICTION_COST
from nnunetv2_sikd.report.formatting import NOTHING, Table, duration, memory
from nnunetv2_sikd.trainers.cost import FILE_NAME as TRAINING_COST

_MOST = 1e15


def training_cost(layout: Layout) -> Table:
    """Cost of every arm's training, teachers in rows of their own and in their students' totals."""
    specification, rows = layout.specification, []
    totals: dict[str, float] = {}
    for arm in sorted(specification.arms, key=lambda key: key != specification.baseline):
        trainings = [training for training in specification.trainings() if training.arm == arm]
        own = [_read_finished(layout.fold(training.trainer, training.fold)) for training in trainings]
        teachers = [
            _read_finished(layout.fold(teacher, training.fold))
            for training in trainings
            if (teacher := teacher_of(training)) is not None
        ]
        if not any(own) and not any(teachers):
            continue
        totals[arm] = _total(own) + (_total(teachers) if teachers else 0.0)
        title = specification.arm_title(arm)
        if teachers:
            rows.append([f"{title}: its teacher", *_columns(teachers), NOTHING, NOTHING])
        baseline = totals.get(specification.baseline, math.nan)
        ratio = totals[arm] / baseline if baseline else math.nan
        relative = NOTHING if math.isnan(ratio) else f"{ratio:.2f} ×"
        rows.append([title, *_columns(own), duration(totals[arm]), relative])
    headers = [
        "Training",
        "Device",
        "Epochs",
        "Time per epoch",
        "Time",
        "Peak memory",
        "Time with teacher",
        "To baseline",
    ]
    note = (
        "Median time of an epoch, other columns means over trainings; final validation not counted. Peak memory: "
        "allocated on the GPU, or resident without one. A teacher shared by several arms is counted for each."
    )
    return Table(headers, rows, (0, 1), note)


def prediction_cost(layout: Layout) -> Table:
    """Cost of every arm's predictions, as its commands took, start included."""
    rows: list[list[str]] = []
    for test in layout.specification.tests:
        heading = [test.title or test.key]
        for arm in layout.specification.arms:
            costs = [
                _read(layout.predictions(test, training) / PREDICTION_COST)
                for training in layout.specification.trainings()
                if training.arm == arm
            ]
            costs = [cost for cost in costs if _number(cost.get("cases")) > 0]
            if costs:
                per_case = fmean(_number(cost.get("seconds")) / _number(cost["cases"]) for cost in costs)
                peak = _mean(_number(cost.get("peak_memory_mb")) for cost in costs)
                title = layout.specification.arm_title(arm)
                rows += [] if heading in rows else [heading]
                rows.append([title, _names(costs, "device"), duration(per_case), memory(peak)])
    note = "Stock and student run the same network: differences are those of the machine's load."
    return Table(["Arm", "Device", "Time per case", "Peak memory"], rows, (0, 1), note)


def teacher_of(training: Training) -> str | None:
    """Name of a student's teacher; None for a trainer without one."""
    from nnunetv2_sikd.trainers import variants

    teacher = getattr(getattr(variants, training.trainer, None), "teacher_class", None)
    return None if teacher is None else str(teacher.__name__)


def _columns(costs: Sequence[dict[str, Any]]) -> list[str]:
    found = [cost for cost in costs if cost]
    listed = [cost.get("seconds_per_epoch") for cost in found]
    seconds = [s for each in listed if isinstance(each, list) for s in map(_number, each) if not math.isnan(s)]
    epochs = "/".join(dict.fromkeys(str(cost.get("epochs", NOTHING)) for cost in found)) or NOTHING
    return [
        _names(found, "device"),
        epochs,
        duration(median(seconds) if seconds else math.nan),
        duration(_total(found)),
        memory(_mean(_peak(cost) for cost in found)),
    ]


def _peak(cost: dict[str, Any]) -> float:
    peaks = cost.get("peak_memory_mib")
    return _number(peaks.get("cuda_allocated", peaks.get("resident"))) if isinstance(peaks, dict) else math.nan


def _total(costs: Sequence[dict[str, Any]]) -> float:
    return _mean(_number(cost.get("total_seconds")) for cost in costs if cost)


def _names(costs: Sequence[dict[str, Any]], key: str) -> str:
    return ", ".join(dict.fromkeys(str(cost[key]) for cost in costs if cost.get(key))) or NOTHING


def _mean(numbers: Iterable[float]) -> float:
    there = [number for number in numbers if not math.isnan(number)]
    return fmean(there) if there else math.nan


def _number(found: Any) -> float:
    """A number of a record; nan for what is none, or cannot be a cost."""
    return float(found) if isinstance(found, (int, float)) and 0 <= found <= _MOST else math.nan


def _read_finished(fold: Path) -> dict[str, Any]:
    """Cost of a training that has ended: the record of one that goes on is of its epochs so far."""
    return _read(fold / TRAINING_COST) if (fold / "checkpoint_final.pth").is_file() else {}


def _read(file: Path) -> dict[str, Any]:
    """A record, empty where there is none: a training by hand has no cost, and a report all the same."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}

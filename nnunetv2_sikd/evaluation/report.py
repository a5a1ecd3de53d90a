"""``summary.json`` as nnU-Net writes it, ``metrics.csv``, and what the command prints."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import save_summary_json

from nnunetv2_sikd.evaluation.case import METRICS, CaseResult, LabelResult, Settings
from nnunetv2_sikd.evaluation.empty_masks import Empty
from nnunetv2_sikd.evaluation.files import PairedFiles, list_names
from nnunetv2_sikd.evaluation.labels import Matching
from nnunetv2_sikd.files import written_whole
from nnunetv2_sikd.untrusted import as_cell

COLUMNS = ("case", "label", "empty", "unit", *METRICS)
"""Of ``metrics.csv``."""

# nnU-Net's names where it has the metric.
_SUMMARY_NAMES = {"dice": "Dice", "iou": "IoU"}


def summarize(
    cases: Sequence[CaseResult], settings: Settings, matching: Matching, files: PairedFiles
) -> dict[str, Any]:
    """Content of ``summary.json``: nnU-Net's keys, and ``evaluation`` with everything else.

    As in nnU-Net, nan is left out of a label's mean, and the foreground mean is the mean of the labels' means.
    """
    per_case: list[dict[str, Any]] = [
        {
            "reference_file": str(case.reference_file),
            "prediction_file": str(case.prediction_file),
            "metrics": {result.label.reference: _metrics(result) for result in case.labels},
        }
        for case in cases
    ]
    mean = {
        label.reference: {
            name: _nanmean([case["metrics"][label.reference][name] for case in per_case])
            for name in per_case[0]["metrics"][label.reference]
        }
        for label in settings.labels
    }
    foreground = {
        name: float(np.mean([values[name] for values in mean.values()])) for name in next(iter(mean.values()))
    }
    policy = settings.policy
    return {
        "metric_per_case": per_case,
        "mean": mean,
        "foreground_mean": foreground,
        "evaluation": {
            "labels": {label.name: label.reference for label in settings.labels},
            "predicted_labels": {label.name: label.prediction for label in settings.labels},
            "labels_left_out": {"only_predicted": matching.only_predicted, "only_annotated": matching.only_annotated},
            "unit": cases[0].unit,
            "surface_dice_tolerance": settings.tolerance,
            "per_slice": settings.per_slice,
            "empty_mask_policy": {"both": policy.both, "one": policy.one},
            "counts": {label.name: _counts(cases, i) for i, label in enumerate(settings.labels)},
            "missing_predictions": files.missing,
            "predictions_without_reference": files.extra,
        },
    }


def write_summary(summary: Mapping[str, Any], file: Path) -> None:
    """Write ``summary.json`` with nnU-Net's own function, whole or not at all."""
    with written_whole(file) as partial:
        save_summary_json(dict(summary), str(partial))


def write_metrics_csv(cases: Sequence[CaseResult], file: Path) -> None:
    """Write one row per case and label, whole or not at all."""
    with written_whole(file) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for case in cases:
            for result in case.labels:
                numbers = [repr(float(result.values[name])) for name in METRICS]
                names = (as_cell(case.case), as_cell(result.label.name))
                writer.writerow([*names, result.empty.value, case.unit, *numbers])


def report(summary: Mapping[str, Any]) -> str:
    """Means and counts per label (Markdown that reads well in a terminal), and what was left out."""
    told = summary["evaluation"]
    unit, tolerance = told["unit"], told["surface_dice_tolerance"]
    rows = [
        [
            "Label",
            "Dice",
            "IoU",
            f"HD ({unit})",
            f"HD95 ({unit})",
            f"ASD ({unit})",
            f"Surface Dice {tolerance:g} {unit}",
        ]
    ]
    rows[0] += ["Cases", "Empty: reference", "prediction", "both"]
    for name, key in told["labels"].items():
        values, counts = summary["mean"][key], told["counts"][name]
        rows.append([name])
        rows[-1] += [f"{values[metric]:.3f}" for metric in ("Dice", "IoU")]
        rows[-1] += [f"{values[metric]:.2f}" for metric in METRICS[2:5]]
        rows[-1] += [f"{values['surface_dice']:.3f}", str(counts["cases"])]
        rows[-1] += [str(counts["empty"][empty.value]) for empty in (Empty.REFERENCE, Empty.PREDICTION, Empty.BOTH)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in rows]
    return "\n".join(lines)


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What was left out of the evaluation, or counts in a way that the means do not show; one line each."""
    told = summary["evaluation"]
    left_out, counts, policy = told["labels_left_out"], told["counts"], told["empty_mask_policy"]
    lines = []
    for names, why in (("only_predicted", "the references do not annotate"), ("only_annotated", "is not predicted")):
        if left_out[names]:
            lines.append(f"Left out, {why}: {', '.join(left_out[names])}.")
    for key, what in (
        ("missing_predictions", "Without prediction, in no mean"),
        ("predictions_without_reference", "Without reference, ignored"),
    ):
        if told[key]:
            lines.append(f"{what}: {list_names(told[key])} ({len(told[key])}).")
    missed = sum(c["empty"][side.value] for c in counts.values() for side in (Empty.REFERENCE, Empty.PREDICTION))
    absent = sum(c["empty"][Empty.BOTH.value] for c in counts.values())
    if missed:
        distances = "are the diagonal" if policy["one"] == "diagonal" else "are in no mean"
        lines.append(f"One mask empty: {missed} of the values per case and label; Dice 0, distances {distances}.")
    if absent:
        values = "Dice 1, distances 0" if policy["both"] == "perfect" else "in no mean"
        lines.append(f"Both masks empty: {absent} of the values per case and label; {values}.")
    unmatched = sum(c["unmatched_slices"] for c in counts.values())
    if unmatched:
        distances = (
            "its distance is the slice's diagonal" if policy["one"] == "diagonal" else "its distance is left out"
        )
        lines.append(f"Slices in which one mask is empty: {unmatched}; a contour without counterpart: {distances}.")
    return lines


def _metrics(result: LabelResult) -> dict[str, float]:
    return {**result.counts, **{_SUMMARY_NAMES.get(name, name): result.values[name] for name in METRICS}}


def _counts(cases: Sequence[CaseResult], index: int) -> dict[str, Any]:
    results = [case.labels[index] for case in cases]
    empty = Counter(result.empty.value for result in results)
    return {
        "cases": len(results),
        "empty": {state.value: empty[state.value] for state in Empty},
        "in_mean": {name: sum(not math.isnan(result.values[name]) for result in results) for name in METRICS},
        "unmatched_slices": sum(result.unmatched_slices for result in results),
    }


def _nanmean(values: Sequence[float]) -> float:
    """Mean without nan; nan, and no warning, if there is nothing else."""
    there = [value for value in values if not math.isnan(value)]
    return float(np.mean(there)) if there else math.nan

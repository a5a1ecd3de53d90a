"""All metrics of one case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.empty_masks import Empty, EmptyMaskPolicy, classify_empty
from nnunetv2_sikd.evaluation.images import Segmentation, Unit, check_same_grid, read_segmentation
from nnunetv2_sikd.evaluation.labels import LabelTable, MatchedLabel
from nnunetv2_sikd.evaluation.surfaces import Mask, SurfaceMetrics, measure_surfaces

METRICS = (
    "dice",
    "iou",
    "hausdorff",
    "hausdorff95",
    "average_surface_distance",
    "surface_dice",
    "volume_reference",
    "volume_prediction",
)
"""Columns of ``metrics.csv``, in their order."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and how; the same for all cases.

    Attributes:
        labels: The structures.
        reference_labels: All labels of the reference files, the ignore label among them.
        prediction_labels: All labels of the prediction files.
        reader: nnU-Net's, for both.
        tolerance: Of surface Dice, in mm (px for images without spacing).
        per_slice: Compare contours slice by slice.
        policy: For empty masks.
    """

    labels: tuple[MatchedLabel, ...]
    reference_labels: LabelTable
    prediction_labels: LabelTable
    reader: Any
    tolerance: float
    per_slice: bool
    policy: EmptyMaskPolicy


@dataclass(frozen=True)
class LabelResult:
    """Metrics of one label of one case.

    Attributes:
        label: What was measured.
        empty: Which of the masks is empty.
        counts: nnU-Net's: TP, FP, FN, TN, n_pred, n_ref, in voxels.
        values: Of each of ``METRICS``: overlap 0 to 1, distances in mm or px, volumes in ml or px.
        unmatched_slices: Slices in which just one mask is empty (slice by slice only).
    """

    label: MatchedLabel
    empty: Empty
    counts: Mapping[str, int]
    values: Mapping[str, float]
    unmatched_slices: int


@dataclass(frozen=True)
class CaseResult:
    """Metrics of all labels of one case."""

    case: str
    reference_file: Path
    prediction_file: Path
    unit: Unit
    labels: tuple[LabelResult, ...]


def evaluate_case(case: str, reference_file: Path, prediction_file: Path, settings: Settings) -> CaseResult | str:
    """Measure one case.

    Returns:
        The metrics, or what is wrong with the files, so that one run names all that need mending.
    """
    try:
        reference = read_segmentation(reference_file, settings.reader, settings.reference_labels)
        prediction = read_segmentation(prediction_file, settings.reader, settings.prediction_labels)
        check_same_grid(reference, prediction, str(prediction_file))
    except SIKDError as error:
        return str(error)
    box = _bounding_box((reference.values != 0) | (prediction.values != 0))
    results = tuple(_measure_label(label, reference, prediction, box, settings) for label in settings.labels)
    return CaseResult(case, reference_file, prediction_file, reference.unit, results)


def _measure_label(
    label: MatchedLabel,
    reference: Segmentation,
    prediction: Segmentation,
    box: tuple[slice, ...],
    settings: Settings,
) -> LabelResult:
    ignored = settings.reference_labels.ignore
    ignore_mask = None if ignored is None else reference.values == ignored
    mask_reference = region_or_label_to_mask(reference.values, label.reference)
    mask_prediction = region_or_label_to_mask(prediction.values, label.prediction)
    tp, fp, fn, tn = (int(count) for count in compute_tp_fp_fn_tn(mask_reference, mask_prediction, ignore_mask))
    empty = classify_empty(tp + fn, tp + fp)
    policy = settings.policy
    if empty is Empty.NONE:
        dice, iou = 2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)
    else:
        dice = iou = policy.overlap(empty)
    if ignore_mask is not None:
        mask_reference, mask_prediction = mask_reference & ~ignore_mask, mask_prediction & ~ignore_mask
    surfaces = _measure_surfaces(empty, mask_reference, mask_prediction, reference.spacing, box, settings)
    voxel = float(np.prod(reference.spacing)) / (1000 if reference.unit == "mm" else 1)  # ml or px
    values = {
        "dice": dice,
        "iou": iou,
        "hausdorff": surfaces.hausdorff,
        "hausdorff95": surfaces.hausdorff95,
        "average_surface_distance": surfaces.average_surface_distance,
        "surface_dice": surfaces.surface_dice,
        "volume_reference": (tp + fn) * voxel,
        "volume_prediction": (tp + fp) * voxel,
    }
    return LabelResult(
        label=label,
        empty=empty,
        counts={"TP": tp, "FP": fp, "FN": fn, "TN": tn, "n_pred": tp + fp, "n_ref": tp + fn},
        values=values,
        unmatched_slices=surfaces.unmatched_slices,
    )


def _measure_surfaces(
    empty: Empty,
    reference: Mask,
    prediction: Mask,
    spacing: tuple[float, float, float],
    box: tuple[slice, ...],
    settings: Settings,
) -> SurfaceMetrics:
    # In 3D, a single slice has its own top and bottom for a surface, at distance 0 wherever the masks overlap.
    flat = [axis for axis, size in enumerate(reference.shape) if size == 1]
    per_slice, slice_axis = settings.per_slice or bool(flat), flat[0] if flat else 0
    order = [slice_axis, *(axis for axis in range(3) if axis != slice_axis)]
    steps = (spacing[order[0]], spacing[order[1]], spacing[order[2]])
    measured = order[1:] if per_slice else order
    longest = math.hypot(*(reference.shape[axis] * spacing[axis] for axis in measured))
    if empty is not Empty.NONE:
        distance, overlap = settings.policy.distance(empty, longest), settings.policy.overlap(empty)
        unmatched = np.any(reference | prediction, axis=tuple(order[1:])).sum() if per_slice else 0
        return SurfaceMetrics(distance, distance, distance, overlap, int(unmatched))
    return measure_surfaces(
        reference[box].transpose(order),
        prediction[box].transpose(order),
        steps,
        tolerance=settings.tolerance,
        per_slice=per_slice,
        missing=settings.policy.distance(Empty.PREDICTION, longest),
    )


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds all voxels of a mask; distances are measured within it, for speed."""
    box = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(there[0]), int(there[-1]) + 1) if there.size else slice(0, 0))
    return tuple(box)

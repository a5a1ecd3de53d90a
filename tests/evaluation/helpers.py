"""Small data sets on disk, and masks whose answers are known."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from nnunetv2_sikd.evaluation.labels import LabelTable

LABELS = {"background": 0, "shell": 1, "core": 2}


def write_json(
    file: Path, labels: Mapping[str, Any] = LABELS, *, ending: str = ".nii.gz", channels: int = 1, **more: Any
) -> Path:
    """A ``dataset.json``."""
    content = {
        "channel_names": {str(c): f"contrast {c}" for c in range(channels)},
        "labels": dict(labels),
        "numTraining": 1,
        "file_ending": ending,
        **more,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_label(
    file: Path,
    array: np.ndarray,
    spacing: tuple[float, ...] = (5.0, 1.0, 1.0),
    *,
    origin: tuple[float, ...] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
) -> Path:
    """A label file ``(Z, Y, X)`` with the spacing of these axes; PNG for ``(Y, X)``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array.astype(np.uint8))
    if array.ndim == 3:
        image.SetSpacing(spacing[::-1])
        image.SetOrigin(origin)
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(file))
    return file


def make_folders(
    folder: Path,
    cases: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    reference_labels: Mapping[str, Any] = LABELS,
    prediction_labels: Mapping[str, Any] = LABELS,
    ending: str = ".nii.gz",
    spacing: tuple[float, ...] = (5.0, 1.0, 1.0),
) -> tuple[Path, Path]:
    """Folders of references and predictions, described as nnU-Net describes them, of pairs by case name."""
    references, predictions = folder / "target" / "labelsTs", folder / "predictions"
    write_json(references.parent / "dataset.json", reference_labels, ending=ending)
    write_json(predictions / "dataset.json", prediction_labels, ending=ending)
    for case, (reference, prediction) in cases.items():
        write_label(references / f"{case}{ending}", reference, spacing)
        write_label(predictions / f"{case}{ending}", prediction, spacing)
    return references, predictions


def table(labels: Mapping[str, Any] = LABELS, **more: Any) -> LabelTable:
    """The labels that a ``dataset.json`` of this content declares."""
    return LabelTable.from_dataset_json({"labels": dict(labels), **more}, Path("dataset.json"))


def box(shape: tuple[int, ...], *sides: tuple[int, int]) -> np.ndarray:
    """A mask that is true from start to stop along each axis."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def ball(shape: tuple[int, ...], radius: float, spacing: tuple[float, ...]) -> np.ndarray:
    """A mask of the voxels whose centre is within ``radius`` of the middle of the image."""
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= radius**2


def blobs(seed: int, shape: tuple[int, ...] = (8, 24, 20)) -> np.ndarray:
    """Smooth random shapes, of several pieces, that differ with the seed yet overlap."""
    from scipy.ndimage import gaussian_filter

    common, own = (np.random.default_rng(s).normal(size=shape) for s in (0, seed))
    return gaussian_filter(common + own, (1, 2, 2), mode="constant") > 0.05


def die(*_: object) -> None:
    """A worker that is killed."""
    os._exit(9)

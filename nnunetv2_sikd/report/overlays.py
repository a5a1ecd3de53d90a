"""Image, reference and predictions of a case, in the slice where the reference is largest."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgba
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from numpy.typing import NDArray

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import choose_reader
from nnunetv2_sikd.evaluation.images import Segmentation, read_segmentation
from nnunetv2_sikd.evaluation.labels import LabelTable, MatchedLabel, match_labels
from nnunetv2_sikd.report.canvas import LABEL_COLOURS, Picture, as_png, new_figure
from nnunetv2_sikd.report.examples import Example
from nnunetv2_sikd.report.formatting import signed, value
from nnunetv2_sikd.report.scores import training_key
from nnunetv2_sikd.report.tables import PRIMARY

_THICK = 1.5  # an axis whose spacing is so many times the others' is the one between slices
_MARGIN = 0.35  # around the structures, as a share of their extent
_INCHES, _DPI = 2.6, 110

Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Overlay:
    """A case in pictures.

    Attributes:
        title: Case and Dice values.
        pictures: Image, reference, baseline and arm, each with its title as caption.
        legend: Name and colour of each label.
    """

    title: str
    pictures: tuple[Picture, ...]
    legend: tuple[tuple[str, str], ...]


def draw_overlay(layout: Layout, example: Example) -> Overlay:
    """Draw a case.

    Args:
        layout: The benchmark's files.
        example: Which case, and which trainings.

    Raises:
        SIKDError: A file of the case is not there or cannot be read.
    """
    test, specification = example.test, layout.specification
    described = layout.dataset_json(test.dataset)
    reference_file = layout.references(test) / f"{example.case}{described['file_ending']}"
    image_file = layout.images(test) / f"{example.case}_0000{described['file_ending']}"
    for file in (reference_file, image_file):
        if not file.is_file():
            raise SIKDError(f"{file}: not there")
    reader = choose_reader(described, reference_file)
    source = LabelTable.from_dataset_json(
        layout.dataset_json(specification.source.dataset), Path("source dataset.json")
    )
    own = LabelTable.from_dataset_json(described, Path(f"{test.dataset} dataset.json"))
    labels = match_labels(source, own, test.labels).labels
    reference = read_segmentation(reference_file, reader, own)
    image = _read_image(image_file, reader)
    masks = {"Reference": _masks(reference, labels, predicted=False)}
    titles = {"Reference": "Reference"}
    for training, dice in zip((example.baseline, example.arm), example.dice, strict=True):
        file = layout.predictions(test, training) / reference_file.name
        if not file.is_file():
            raise SIKDError(f"{file}: not there")
        masks[training.arm] = _masks(read_segmentation(file, reader, source), labels, predicted=True)
        titles[training.arm] = f"{specification.arm_title(training.arm)}: Dice {value(PRIMARY, dice)}"
    if any(mask.shape != image.shape for found in masks.values() for mask in found.values()):
        raise SIKDError(f"{image_file}: has another shape than its reference or prediction")
    axis, index = _choose_slice(reference, masks["Reference"])
    cut = {
        name: {key: np.moveaxis(mask, axis, 0)[index] for key, mask in found.items()} for name, found in masks.items()
    }
    shown: NDArray[np.float32] = np.moveaxis(image, axis, 0)[index]
    spacing = tuple(np.delete(np.array(reference.spacing), axis))
    box = _box(cut, shown.shape)
    where = f"{test.key}_{example.rank}"
    slices = image.shape[axis]
    what = f"{example.case}, slice {index + 1} of {slices}" if slices > 1 else example.case
    pictures = [_panel(shown, {}, {}, spacing, box, f"{where}_image.png", f"{what}: image", "Image")]
    for name, found in cut.items():
        title, outline = titles[name], cut["Reference"]
        file_name = f"{where}_{'reference' if name == 'Reference' else name}.png"
        pictures.append(_panel(shown, found, outline, spacing, box, file_name, f"{what}: {title}", title))
    change = signed(PRIMARY, example.dice[1] - example.dice[0])
    pair = training_key(example.arm.seed, example.arm.fold)
    return Overlay(
        f"{test.title or test.key}: {example.rank} difference, {change} ({what}, {pair})",
        tuple(pictures),
        tuple((label.name, LABEL_COLOURS[i % len(LABEL_COLOURS)]) for i, label in enumerate(labels)),
    )


def _read_image(file: Path, reader: Any) -> NDArray[np.float32]:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            array, _ = reader.read_images([str(file)])
    except Exception as error:  # each reader's library has its own
        raise SIKDError(f"{file}: cannot be read ({type(error).__name__})") from error
    return np.asarray(array, dtype=np.float32).mean(axis=0)  # colours of a photograph as grey


def _masks(segmentation: Segmentation, labels: tuple[MatchedLabel, ...], *, predicted: bool) -> Masks:
    values = segmentation.values
    return {
        label.name: region_or_label_to_mask(values, label.prediction if predicted else label.reference)
        for label in labels
    }


def _choose_slice(reference: Segmentation, masks: Masks) -> tuple[int, int]:
    """Axis between the slices, and the slice with the largest reference area; results have no say in it."""
    spacing, shape = np.array(reference.spacing), np.array(reference.values.shape)
    thickest = int(spacing.argmax())
    axis = thickest if spacing[thickest] > _THICK * np.delete(spacing, thickest).max() else 0
    axis = int(shape.argmin()) if (shape == 1).any() else axis
    area = np.any(list(masks.values()), axis=0).sum(axis=tuple(other for other in range(3) if other != axis))
    return axis, int(area.argmax())


def _box(cut: dict[str, Masks], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A part of the slice around all that is marked in it, the same for all panels."""
    marked = np.any([mask for found in cut.values() for mask in found.values()], axis=0)
    if not marked.any():
        return slice(0, shape[0]), slice(0, shape[1])
    box = []
    for axis in range(2):
        there = np.flatnonzero(marked.any(axis=1 - axis))
        extent = max(there[-1] - there[0] + 1, shape[axis] // 4)
        middle, half = (there[0] + there[-1] + 1) / 2, extent * (0.5 + _MARGIN)
        box.append(slice(max(0, int(middle - half)), min(shape[axis], int(np.ceil(middle + half)))))
    return box[0], box[1]


def _panel(
    image: NDArray[np.float32],
    masks: Masks,
    outline: Masks,
    spacing: tuple[float, ...],
    box: tuple[slice, slice],
    name: str,
    alt: str,
    caption: str,
) -> Picture:
    image = image[box]
    low, high = np.percentile(image, (0.5, 99.5))
    height, width = (size * step for size, step in zip(image.shape, spacing, strict=True))
    figure = new_figure(_INCHES, dpi=_DPI, width=_INCHES)
    axes = figure.add_axes((0, 0, 1, 1))
    figure.set_layout_engine("none")
    axes.set_facecolor("black")
    extent = (0.0, width, height, 0.0)
    options: dict[str, Any] = {"extent": extent, "aspect": "equal"}
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="bicubic", **options)
    for i, mask in enumerate(masks.values()):
        overlay = np.zeros((*image.shape, 4))
        overlay[mask[box]] = to_rgba(LABEL_COLOURS[i % len(LABEL_COLOURS)], 0.5)
        axes.imshow(overlay, interpolation="nearest", **options)
    for mask in outline.values():
        inside = mask[box]
        if inside.any() and not inside.all():
            axes.contour(inside, levels=[0.5], colors="white", linewidths=1.1, extent=extent, origin="upper")
    side = max(height, width)
    axes.set_xlim((width - side) / 2, (width + side) / 2)
    axes.set_ylim((height + side) / 2, (height - side) / 2)
    axes.set(xticks=[], yticks=[])
    return Picture(name, as_png(figure), alt, caption)

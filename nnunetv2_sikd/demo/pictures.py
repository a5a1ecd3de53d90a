"""Pictures of the demonstration: what the two scanners see, and what the networks make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.demo.results import STRUCTURES, case_dice

# Okabe and Ito's palette: told apart with any colour vision.
_COLOURS = dict(zip(STRUCTURES, ("#56B4E9", "#E69F00", "#009E73", "#CC79A7"), strict=True))
_NETWORKS = {"stock": "Stock nnU-Net", "student": "Student (SIKD)"}
_DPI = 200


@dataclass(frozen=True)
class Example:
    """One test case.

    Attributes:
        title: Where it is from, in plain words.
        image: ``(y, x)``.
        reference: Label values, ``(y, x)``.
        predictions: Predicted label values ``(y, x)`` by model (``stock``, ``student``).
        dice: Mean Dice of each prediction.
    """

    title: str
    image: NDArray[np.float32]
    reference: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]
    dice: Mapping[str, float]


def load_example(title: str, raw: Path, predictions: Mapping[str, Path]) -> Example:
    """The first test case of a data set: which one is shown does not depend on any result.

    Args:
        title: Where it is from, in plain words.
        raw: The raw data set.
        predictions: Folder of the predictions by model.
    """
    reference = min((raw / "labelsTs").glob("*.nii.gz"))
    image = raw / "imagesTs" / reference.name.replace(".nii.gz", "_0000.nii.gz")
    files = {name: folder / reference.name for name, folder in predictions.items()}
    return Example(
        title,
        _read(image),
        _read(reference),
        {name: _read(file) for name, file in files.items()},
        {name: float(np.nanmean(list(case_dice(reference, file).values()))) for name, file in files.items()},
    )


def draw_scanners(examples: Sequence[Example], file: Path) -> None:
    """Image, class average and reference of an example of each scanner, into a PNG."""
    figure = _figure(8.0, 2.75 * len(examples) + 0.35)
    grid = figure.subplots(len(examples), 3, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        image: np.ndarray = example.image[None, None]
        label: np.ndarray = example.reference[None]
        average = class_average(image, label)[0, 0]
        limits = _window(example.image)
        _show(row[0], example.image, limits)
        _show(row[1], average, limits, smooth=False)
        _show(row[2], example.image, limits)
        _fill(row[2], example.reference)
        row[0].set_ylabel(example.title, fontsize=13)
    for axes, title in zip(grid[0], ("Image", "Class average", "Reference"), strict=True):
        axes.set_title(title, fontsize=13)
    _legend(figure)
    figure.savefig(file)


def draw_comparison(examples: Sequence[Example], file: Path) -> None:
    """Reference and predictions of an example of each scanner, into a PNG.

    The reference's outlines are repeated in white over the predictions.
    """
    names = list(examples[0].predictions)
    figure = _figure(8.0, 2.33 * len(examples) + 0.25)
    grid = figure.subplots(len(examples), 2 + len(names), squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        for axes in row:
            _show(axes, example.image, _window(example.image))
        row[0].set_ylabel(example.title, fontsize=12)
        _fill(row[1], example.reference)
        _outline(row[1], example.reference)
        for axes, name in zip(row[2:], names, strict=True):
            _fill(axes, example.predictions[name])
            _outline(axes, example.reference)
            axes.set_xlabel(f"mean Dice {example.dice[name]:.2f}", fontsize=11)
    for axes, title in zip(grid[0], ("Image", "Reference", *(_NETWORKS[name] for name in names)), strict=True):
        axes.set_title(title, fontsize=12)
    _legend(figure, outline=True)
    figure.savefig(file)


def _read(file: Path) -> NDArray[Any]:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _window(image: NDArray[np.float32]) -> tuple[float, float]:
    low, high = np.percentile(image, (0.5, 99.8))
    return float(low), float(high)


def _show(axes: Axes, image: NDArray[np.float32], limits: tuple[float, float], *, smooth: bool = True) -> None:
    low, high = limits
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, interpolation="bicubic" if smooth else "nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _fill(axes: Axes, label: NDArray[np.uint8]) -> None:
    overlay = np.zeros((*label.shape, 4))
    for name, value in STRUCTURES.items():
        overlay[label == value] = to_rgba(_COLOURS[name], 0.65)
    axes.imshow(overlay, interpolation="nearest")


def _outline(axes: Axes, label: NDArray[np.uint8]) -> None:
    for value in STRUCTURES.values():
        axes.contour(label == value, levels=[0.5], colors="white", linewidths=0.9)


def _legend(figure: Figure, *, outline: bool = False) -> None:
    handles: list[Artist] = [Patch(facecolor=to_rgb(colour), label=name) for name, colour in _COLOURS.items()]
    if outline:
        on_grey = [Stroke(linewidth=10, foreground="0.4"), Normal()]
        handles.append(
            Line2D([], [], color="white", linewidth=1.5, path_effects=on_grey, label="outline of the reference")
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=11)

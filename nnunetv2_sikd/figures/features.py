"""Picture and table of the penultimate features of teacher, student and stock network (the paper's Fig. 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_sikd.figures.cases import class_names, validation_cases
from nnunetv2_sikd.figures.drawing import (
    bare,
    colours,
    new_figure,
    outline_classes,
    save_figure,
    save_table,
    show_classes,
    show_grey,
)
from nnunetv2_sikd.figures.networks import FoldNetworks
from nnunetv2_sikd.figures.similarity import principal_axes, rotate_onto
from nnunetv2_sikd.figures.slice_features import SliceFeatures, compare, slice_features, summary
from nnunetv2_sikd.folders import make_folder
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

# Corners of the colour key (low/low, high/low, low/high, high/high): lightness and blue to orange, which any
# colour vision tells apart.
_CORNERS = np.array([[[0.02, 0.12, 0.30], [0.62, 0.82, 0.97]], [[0.45, 0.18, 0.0], [1.0, 0.90, 0.55]]])
_PIXELS_PER_CLASS = 2000
_TITLES = {"teacher": "Teacher", "student": "Student (SIKD)", "stock": "Stock nnU-Net"}


def draw_features(
    planned: PlannedConfiguration,
    fold: int | str,
    networks: FoldNetworks,
    output: Path,
    case: str | None = None,
    slice_index: int | None = None,
) -> list[Path]:
    """Write ``features.png``, one slice of one case, and ``features.csv``, one slice of each validation case.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold, or ``all``.
        networks: Its networks.
        output: Folder; made if it is not there.
        case: Case to show; None for the first validation case.
        slice_index: Its slice, as preprocessed; None for the one with the most foreground classes, then pixels.

    Returns:
        The files, picture first.

    Raises:
        SIKDError: No splits, no such case or slice, or the files cannot be written.

    Reference:
        Dong, Du, Xu: Shape-intensity knowledge distillation for robust medical image segmentation,
        Frontiers of Computer Science 2024, Fig. 7.
    """
    cases = validation_cases(planned, fold)
    shown = slice_features(planned, networks, case or cases[0], slice_index)
    rows = [{"shown": "yes", **row} for row in compare(shown)]
    for each in tqdm([each for each in cases if each != shown.case], desc="Features", unit="case"):
        rows += [{"shown": "no", **row} for row in compare(slice_features(planned, networks, each))]
    print(summary([row for row in rows if row["case"] in cases]))
    make_folder(output)
    role = "validation case" if shown.case in cases else "training case"
    title = f"{planned.plans.dataset_name}, {planned.name}, fold {fold}: {role} {shown.case}, slice {shown.index}"
    return [
        save_figure(_picture(planned, shown, title), output / "features.png"),
        save_table(rows, output / "features.csv"),
    ]


def _picture(planned: PlannedConfiguration, view: SliceFeatures, title: str) -> Figure:
    """Inputs in the first column, then a column for each network."""
    networks = list(view.features)
    height, width = view.label.shape
    side = 2.5
    figure = new_figure(side * (1 + len(networks)), 3 * (side * min(max(height / width, 0.5), 1.6) + 0.5) + 0.9)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(3, 1 + len(networks))
    _inputs(grid[:, 0], planned, view, figure)
    _features(grid, view)
    _distances(grid, view, figure)
    for axes in grid.flat:
        bare(axes)
    return figure


def _inputs(column: NDArray[Any], planned: PlannedConfiguration, view: SliceFeatures, figure: Figure) -> None:
    names = class_names(planned)
    palette = colours(names)
    low, high = np.percentile(view.image[0], (0.5, 99.5))
    for axes, image, title in zip(
        column,
        (view.image[0], view.teacher_input[0], view.image[0]),
        ("Image", "Teacher's input", "Reference"),
        strict=True,
    ):
        show_grey(axes, image, (float(low), float(high)))
        axes.set_title(title, fontsize=11)
    show_classes(column[2], view.label, palette)
    present = [value for value in names if value > 0 and (view.label == value).any()]
    handles = [Patch(color=palette[value], label=names[value]) for value in present]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 4), frameon=False, fontsize=9)


def _features(grid: NDArray[Any], view: SliceFeatures) -> None:
    """The first two principal components of the teacher's features, for all networks in the same colours."""
    teacher = view.matrix("teacher")
    sample = teacher[_balanced(view.label[view.counted])]
    directions, shares = principal_axes(sample, 2)
    limits = np.percentile(sample @ directions, (1, 99), axis=0)
    palette = {int(value): "" for value in np.unique(view.label)}
    numbers = {(row["network"], row["region"]): row for row in compare(view)}
    for column, network in enumerate(view.features, start=1):
        features = view.matrix(network)
        top, below = grid[0][column], grid[1][column]
        top.imshow(_coloured(view, features @ directions, limits), interpolation="nearest")
        top.set_title(_TITLES[network], fontsize=11)
        if network == "teacher":
            _key(below, shares)
            continue
        rotated = rotate_onto(features, teacher)
        below.imshow(_coloured(view, rotated @ directions, limits), interpolation="nearest")
        below.set_title("Rotated onto the teacher's", fontsize=9)
        whole, foreground = numbers[network, "slice"], numbers.get((network, "foreground"))
        top.set_xlabel(f"MSE {whole['mse']:.3f}", fontsize=10)
        told = f"MSE {whole['mse_rotated']:.3f}\nCKA {whole['cka']:.2f}"
        below.set_xlabel(told + (f", in the foreground {foreground['cka']:.2f}" if foreground else ""), fontsize=10)
    for axes in (*grid[0][1:], *grid[1][2:]):
        outline_classes(axes, view.label, palette)


def _balanced(classes: NDArray[np.int16]) -> NDArray[np.int64]:
    """Indices of as many pixels of each class: background, most of a slice, would decide the components alone."""
    chosen = []
    for value in np.unique(classes):
        pixels = np.flatnonzero(classes == value)
        chosen.append(pixels[np.linspace(0, len(pixels) - 1, _PIXELS_PER_CLASS).round().astype(int)])
    return np.concatenate(chosen)


def _coloured(view: SliceFeatures, components: NDArray[np.float64], limits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two components as colours ``(Y, X, 3)``; white where pixels do not count."""
    spread = np.maximum(limits[1] - limits[0], 1e-12)
    picture = np.ones((*view.counted.shape, 3))
    picture[view.counted] = _colour(np.clip((components - limits[0]) / spread, 0, 1))
    return picture


def _colour(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours ``(..., 3)`` between the corners of the key for components ``(..., 2)`` from 0 to 1."""
    first, second = components[..., :1], components[..., 1:]
    low = (1 - first) * _CORNERS[0, 0] + first * _CORNERS[0, 1]
    high = (1 - first) * _CORNERS[1, 0] + first * _CORNERS[1, 1]
    return np.asarray((1 - second) * low + second * high)


def _key(axes: Axes, shares: NDArray[np.float64]) -> None:
    """The colours of the two components, in the middle of an otherwise empty panel."""
    inset = axes.inset_axes((0.3, 0.3, 0.45, 0.45))
    steps = np.linspace(0, 1, 64)
    inset.imshow(_colour(np.stack(np.meshgrid(steps, steps), -1)), origin="lower", aspect="auto")
    inset.set_xlabel(f"component 1\n({shares[0]:.0%} of variance)", fontsize=9)
    inset.set_ylabel(f"component 2\n({shares[1]:.0%})", fontsize=9)
    inset.set(xticks=[], yticks=[])
    inset.set_title("Teacher's principal\ncomponents, as colours", fontsize=9)


def _distances(grid: NDArray[Any], view: SliceFeatures, figure: Figure) -> None:
    """Squared distance to the teacher's features at each pixel, in one scale for all networks."""
    teacher = view.features["teacher"]
    others = [network for network in view.features if network != "teacher"]
    maps = {network: np.square(view.features[network] - teacher).mean(0) for network in others}
    for each in maps.values():
        each[~view.counted] = np.nan
    # Logarithmic, over the range that nearly all pixels have: the networks differ by orders of magnitude.
    low, high = np.nanpercentile(np.stack(list(maps.values())), (1, 99.5))
    high = max(float(high), 1e-12)
    scale = LogNorm(min(max(float(low), high / 1e4), high / 10), high)
    for column, network in enumerate(others, start=2):
        axes = grid[2][column]
        shown = axes.imshow(maps[network], cmap="cividis", norm=scale, interpolation="nearest")
        outline_classes(axes, view.label, {int(value): "" for value in np.unique(view.label)})
        axes.set_title("Squared distance to the teacher's", fontsize=9)
    bar = grid[2][1].inset_axes((0.45, 0.1, 0.08, 0.75))
    figure.colorbar(shown, cax=bar, extend="both")
    bar.set_title("Squared\ndistance", fontsize=9)

"""Picture and table of the intensities per class over the validation cases of a fold (the paper's Fig. 3)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunetv2_sikd.figures.cases import averaged_apart, validation_cases
from nnunetv2_sikd.figures.class_intensities import (
    NEAR_SD,
    ClassIntensities,
    channel_names,
    measure_intensities,
    table,
)
from nnunetv2_sikd.figures.drawing import colours, new_figure, save_figure, save_table
from nnunetv2_sikd.folders import make_folder
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

_UNITS = {
    "ZScoreNormalization": "Intensity, z-scored per case",
    "CTNormalization": "Intensity, z-scored over the data set",
    "RescaleTo01Normalization": "Intensity, rescaled to 0 to 1",
    "RGBTo01Normalization": "Intensity, 0 to 1",
    "NoNormalization": "Intensity, not normalised",
}
# Pixels beyond these shares of a distribution do not stretch the axis.
_TAILS = 0.003


def draw_intensities(planned: PlannedConfiguration, fold: int | str, output: Path) -> list[Path]:
    """Write ``intensities.png`` and ``intensities.csv`` for the validation cases of a fold.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold, or ``all``.
        output: Folder; made if it is not there.

    Returns:
        The files, picture first.

    Raises:
        SIKDError: No splits, a case cannot be read, or the files cannot be written.

    Reference:
        Dong, Du, Xu: Shape-intensity knowledge distillation for robust medical image segmentation,
        Frontiers of Computer Science 2024, Fig. 3.
    """
    cases = validation_cases(planned, fold)
    channels = measure_intensities(planned, cases)
    for name, classes in zip(channel_names(planned), channels, strict=True):
        for each in (each for each in classes if each.from_background):
            print(
                f"{name}, {each.name}: average within {NEAR_SD} sd of background's in {each.near_background:.0%} of "
                f"{len(each.from_background)} {averaged_apart(planned)}s"
            )
    make_folder(output)
    title = f"{planned.plans.dataset_name}, {planned.name}, fold {fold}: {len(cases)} validation cases"
    return [
        save_figure(_picture(planned, channels, title), output / "intensities.png"),
        save_table(table(planned, channels), output / "intensities.csv"),
    ]


def _picture(planned: PlannedConfiguration, channels: list[list[ClassIntensities]], title: str) -> Figure:
    """A row for each channel: images, class averages, and how far the averages are from background's."""
    unit = averaged_apart(planned)
    figure = new_figure(11, 3.1 * len(channels) + 0.8)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(len(channels), 3, squeeze=False, width_ratios=(1, 1, 0.9))
    schemes = planned.configuration.normalization_schemes
    for row, name, classes, scheme in zip(grid, channel_names(planned), channels, schemes, strict=True):
        _distributions(row[0], classes, averages=False)
        _distributions(row[1], classes, averages=True)
        row[1].sharex(row[0])
        for axes in row[:2]:
            axes.set_xlabel(_UNITS.get(scheme, "Intensity, as preprocessed"))
        row[0].set_ylabel(f"{name}\nDensity of each class" if len(channels) > 1 else "Density of each class")
        _distances(row[2], classes, unit)
    grid[0][0].set_title("Images", fontsize=11)
    grid[0][1].set_title(f"Class averages, per {unit}", fontsize=11)
    grid[0][2].set_title(f"Distance from background, per {unit}", fontsize=11)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 6), frameon=False, fontsize=10)
    return figure


def _distributions(axes: Axes, classes: list[ClassIntensities], *, averages: bool) -> None:
    """Density of each class, over the same range for images and averages."""
    palette = colours(each.value for each in classes)
    width = classes[0].bin_width
    ends = [end for each in classes for end in _middle(each.images)]
    bins = np.arange(min(ends) - 1, max(ends) + 2)
    highest: dict[int, float] = {}
    for i, each in enumerate(classes):
        histogram = each.averages if averages else each.images
        density = np.array([histogram[k] for k in bins.tolist()]) / (sum(histogram.values()) * width)
        highest[each.value] = density.max()
        style = ("-", "--", ":")[max(i - 1, 0) // 7 % 3]  # the palette repeats after seven foreground classes
        colour = palette[each.value]
        axes.fill_between(bins * width, density, step="mid", color=colour, alpha=0.15, linewidth=0)
        axes.step(bins * width, density, where="mid", color=colour, linestyle=style, linewidth=1.3, label=each.name)
    axes.set_ylim(0, 1.1 * max(highest.values()))
    foreground = max((height for value, height in highest.items() if value > 0), default=0.0)
    if 0 < 2 * foreground < highest.get(0, 0.0):
        # The mean over a whole background hardly varies: to scale, it would press the classes flat.
        axes.set_ylim(0, 1.3 * foreground)
        note = f"background up to {highest[0]:.1f}"
        axes.annotate(note, (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _distances(axes: Axes, classes: list[ClassIntensities], unit: str) -> None:
    """One dot a slice: how far its class average is from background's, and how often that is next to nothing."""
    foreground = [each for each in classes if each.from_background]
    palette = colours(each.value for each in classes)
    axes.axvspan(-NEAR_SD, NEAR_SD, color="0.85", linewidth=0)
    random = np.random.default_rng(0)  # spreads the dots, nothing else
    for row, each in enumerate(foreground):
        heights = row + random.uniform(-0.28, 0.28, len(each.from_background))
        size = 5 if len(heights) > 100 else 16
        axes.scatter(each.from_background, heights, s=size, color=palette[each.value], alpha=0.6, linewidths=0)
        told = f"{each.near_background:.0%} within ±{NEAR_SD}"
        axes.text(1, row - 0.32, told, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=9)
    axes.set(ylim=(len(foreground) - 0.6, -0.7), yticks=range(len(foreground)))
    axes.set_yticklabels([each.name for each in foreground])
    axes.set_xlabel("Class average minus background's,\nin standard deviations of the image")
    axes.spines[["top", "right"]].set_visible(False)


def _middle(histogram: Counter[int]) -> tuple[int, int]:
    """First and last bin without the outermost pixels on either side."""
    bins = np.array(sorted(histogram))
    shares = np.cumsum([histogram[k] for k in bins.tolist()]) / sum(histogram.values())
    return int(bins[np.searchsorted(shares, _TAILS)]), int(bins[np.searchsorted(shares, 1 - _TAILS)])

"""Pictures: Dice over severity, differences, what the shifts do to an image and what trainers make of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch

from nnunetv2_sikd.figures.drawing import (
    bare,
    colours,
    new_figure,
    outline_classes,
    save_figure,
    show_classes,
    show_grey,
)
from nnunetv2_sikd.figures.forest import Group, draw_groups, forest_height
from nnunetv2_sikd.stress.scores import COLUMNS, Dice, Difference, by_seed, curves, mean_curves, title_of
from nnunetv2_sikd.stress.shifts import SHIFTS, Image, Label, Shift

_MARKERS = "osD^vPX*"


@dataclass(frozen=True)
class Example:
    """A slice as it is or under a shift, and what trainers find in it.

    Attributes:
        title: Of the shift.
        image: ``(Y, X)``.
        reference: ``(Y, X)``.
        predictions: By trainer: prediction ``(Y, X)`` and the mean Dice of its whole case, nan where there is none.
    """

    title: str
    image: Image
    reference: Label
    predictions: Mapping[str, tuple[Label, float]]


def draw_curves(dice: Mapping[str, Dice], trainers: Sequence[str], file: Path) -> Path:
    """Draw mean Dice over severity for each shift and for all together.

    A line a trainer; trainers that differ in their seed alone share one, with a band from the lowest to the highest.
    """
    titles = {"": "All but class levels", **{shift.name: shift.title for shift in SHIFTS}}
    figure = new_figure(12, 5.4)
    axes = figure.subplots(2, 5, sharex=True, sharey=True).ravel()
    groups = by_seed(trainers)
    palette = colours(range(len(groups) + 1))
    for number, (title, group) in enumerate(groups.items()):
        each = [curves(dice[trainer]) for trainer in group.values()]
        found, colour = mean_curves(dice[trainer] for trainer in group.values()), palette[number + 1]
        label = title_of(title, group)
        for axis, name in zip(axes, titles, strict=True):
            axis.plot(found[name], color=colour, marker=_MARKERS[number % len(_MARKERS)], markersize=4, label=label)
            if len(each) > 1:
                values = np.array([one[name] for one in each])
                steps = range(values.shape[1])
                axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.15, linewidth=0)
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.set_title(title, fontsize=10, fontweight="bold" if not name else "normal")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[7].set_xlabel("severity")
    figure.supylabel("mean Dice", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, frameon=False)
    return save_figure(figure, file)


def draw_shifts(alter: Callable[[Shift, int], Image], shown: int, severities: int, file: Path) -> Path:
    """Draw a slice under each shift, weakest to strongest.

    Args:
        alter: The image ``(C, Z, Y, X)`` under a shift and severity; its first channel is shown.
        shown: Slice.
        severities: Steps to the strongest.
        file: Where to.
    """
    figure = new_figure(1.3 * len(SHIFTS), 1.3 * (severities + 1) + 0.3)
    axes = figure.subplots(severities + 1, len(SHIFTS), squeeze=False)
    for column, shift in zip(axes.T, SHIFTS, strict=True):
        column[0].set_title(shift.title, fontsize=8)
        for severity, axis in enumerate(column):
            altered = alter(shift, severity)[0, shown]
            show_grey(axis, altered, (float(np.percentile(altered, 0.5)), float(np.percentile(altered, 99.5))))
            bare(axis)
    for severity, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(f"severity {severity}" if severity else "as it is", fontsize=8)
    return save_figure(figure, file)


def draw_differences(differences: Mapping[str, Mapping[str, Difference]], first: str, file: Path) -> Path:
    """Draw differences to the first trainer and their intervals, the trainers under the heading of each shift.

    Args:
        differences: By title of the trainers and of the shift.
        first: Title of the first trainer.
        file: Where to.
    """
    groups = [
        Group(column, [(title, *found[column]) for title, found in differences.items() if column in found])
        for column in COLUMNS
    ]
    figure = new_figure(8, forest_height(groups) + 0.4)
    figure.suptitle(f"Dice minus that of {first}\nand its 95 % interval", fontsize=9)
    axes = figure.subplots()
    draw_groups(axes, groups)
    axes.set_xlabel("← worse        better →", fontsize=9)
    return save_figure(figure, file)


def draw_views(examples: Sequence[Example], names: Mapping[int, str], title: str, file: Path) -> Path:
    """Draw what each trainer finds in a slice under each shift: predictions filled, the reference outlined.

    Args:
        examples: The same slice as it is and altered, of the same trainers.
        names: Of the classes, by label value.
        title: Of the picture.
        file: Where to.
    """
    trainers = list(examples[0].predictions)
    height, width = examples[0].image.shape
    side = 1.3 * min(max(height / width, 0.5), 1.6)
    heights = [side + (0.45 if trainer != trainers[0] else 0.65) for trainer in trainers]
    figure = new_figure(1.3 * len(examples), sum(heights) + 0.6)
    figure.suptitle(title, fontsize=9)
    palette = colours(names)
    rows = figure.subfigures(len(trainers), 1, squeeze=False, height_ratios=heights)[:, 0]
    for number, (row, trainer) in enumerate(zip(rows, trainers, strict=True)):
        row.suptitle(trainer, fontsize=8, fontweight="bold", x=0.01, ha="left")
        for axes, example in zip(row.subplots(1, len(examples), squeeze=False)[0], examples, strict=True):
            prediction, dice = example.predictions[trainer]
            low, high = np.percentile(example.image, (0.5, 99.5))
            show_grey(axes, example.image, (float(low), float(high)))
            show_classes(axes, prediction, palette)
            outline_classes(axes, example.reference, palette)
            axes.set_xlabel("" if np.isnan(dice) else f"Dice {dice:.2f}", fontsize=7, labelpad=2)
            if number == 0:
                axes.set_title(example.title, fontsize=8)
            bare(axes)
    handles = [Patch(color=palette[value], label=name) for value, name in names.items() if value > 0]
    handles.append(Patch(facecolor="grey", edgecolor="white", label="reference: white outline"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False, fontsize=8)
    return save_figure(figure, file)

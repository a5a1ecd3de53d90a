"""Pictures: Dice over severity, and what the shifts do to an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_sikd.figures.drawing import bare, colours, new_figure, save_figure, show_grey
from nnunetv2_sikd.stress.scores import Dice, by_seed, curves, mean_curves
from nnunetv2_sikd.stress.shifts import SHIFTS, Image, Shift

_MARKERS = "osD^vPX*"


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
        label = f"{title} ({len(group)} seeds)" if len(group) > 1 else next(iter(group.values()))
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

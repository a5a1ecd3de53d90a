"""Differences and their intervals around 0, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from nnunetv2_sikd.figures.drawing import BETTER, UNCLEAR, WORSE, plain


@dataclass(frozen=True)
class Group:
    """Lines under one heading.

    Attributes:
        title: The heading.
        rows: Title, difference, low and high of each line.
        margin: Of non-inferiority; None where it does not count.
    """

    title: str
    rows: Sequence[tuple[str, float, float, float]]
    margin: float | None = None


def forest_height(groups: Sequence[Group]) -> float:
    """Inches that a forest plot of these groups takes, with its axis."""
    return 0.9 + 0.24 * sum(len(group.rows) + 1 for group in groups)


def draw_groups(axes: Axes, groups: Sequence[Group]) -> None:
    """Draw differences and intervals around 0: a line each, under the headings of their groups."""
    axes.axvline(0, color="black", linewidth=0.9)
    y, ticks = 0.0, []
    for group in groups:
        ticks.append((y, group.title, True))
        top = y
        for title, difference, low, high in group.rows:
            y -= 1
            ticks.append((y, title, False))
            _draw_line(axes, y, difference, low, high)
        if group.margin is not None:
            axes.plot([-group.margin] * 2, [top - 0.4, y - 0.5], color=WORSE, linestyle=(0, (2, 2)), linewidth=1.2)
        y -= 1.3
    axes.set_yticks([tick[0] for tick in ticks], [tick[1] for tick in ticks])
    for text, (_, _, heading) in zip(axes.get_yticklabels(), ticks, strict=True):
        text.set_fontweight("bold" if heading else "normal")
    axes.set_ylim(y + 0.6, 0.8)
    axes.tick_params(axis="y", length=0)
    plain(axes)
    axes.locator_params(axis="x", nbins=6)
    axes.spines["left"].set_visible(False)


def _draw_line(axes: Axes, y: float, difference: float, low: float, high: float) -> None:
    colour = BETTER if low > 0 else WORSE if high < 0 else UNCLEAR
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot([low, high], [y, y], color=colour, linewidth=0, marker="|", markersize=6)
    axes.plot(
        difference, y, color=colour, marker="o", markersize=5, markerfacecolor="white" if colour == UNCLEAR else colour
    )

"""Forest plots: differences and their intervals, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from nnunetv2_sikd.report import formatting as f
from nnunetv2_sikd.report.canvas import BETTER, UNCLEAR, WIDTH, WORSE, Picture, as_svg, new_figure, plain
from nnunetv2_sikd.report.pairing import MEAN_LABEL
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import PRIMARY


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


def forest_plots(results: Results) -> list[Picture]:
    """One plot for one compared arm; for several, one per test set, the arms under each label."""
    arms = list(dict.fromkeys(results.compared()["arm"]))
    if not arms:
        return []
    if len(arms) == 1:
        groups = [
            Group(
                results.title(test.key),
                [_line(_label(row["label"]), row) for row in results.compared(arms[0], test.key).to_dict("records")],
                _margin(results, test.key),
            )
            for test in results.tests
        ]
        title = results.specification.arm_title(arms[0])
        return [
            _draw([group for group in groups if group.rows], "forest.svg", f"{title}, by test set and label", results)
        ]
    return [
        _draw(groups, f"forest_{test.key}.svg", f"{results.title(test.key)}, by label and arm", results)
        for test in results.tests
        if (groups := _by_label(results, test.key))
    ]


def _by_label(results: Results, test: str) -> list[Group]:
    groups = []
    for label in reversed(results.labels(test)):  # the mean first
        rows = results.compared(test=test)
        found = rows[rows["label"] == label].to_dict("records")
        if found:
            lines = [_line(results.specification.arm_title(row["arm"]), row) for row in found]
            groups.append(Group(_label(label), lines, _margin(results, test)))
    return groups


def _draw(groups: Sequence[Group], name: str, what: str, results: Results) -> Picture:
    figure = new_figure(forest_height(groups))
    axes = figure.subplots()
    draw_groups(axes, groups)
    baseline = results.specification.arm_title(results.specification.baseline)
    axes.set_xlabel(f"Dice difference from {baseline}\n← worse        better →", fontsize=9)
    told = "; ".join(
        f"{group.title}, {title}: {f.signed(PRIMARY, difference)} ({f.interval(PRIMARY, low, high)})"
        for group in groups
        for title, difference, low, high in group.rows
    )
    caption = (
        f"Dice difference from {baseline} and its 95 % interval: {what}. Blue: better, orange: worse, grey: not clear."
    )
    if any(group.margin is not None for group in groups):
        caption += f" Dotted: the margin of non-inferiority ({results.specification.non_inferiority_margin:g})."
    return Picture(name, as_svg(figure), f"Forest plot of Dice differences. {told}.", caption, WIDTH)


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


def _line(title: str, row: dict[Any, Any]) -> tuple[str, float, float, float]:
    return title, row["difference"], row["low"], row["high"]


def _label(label: str) -> str:
    return "mean" if label == MEAN_LABEL else label


def _margin(results: Results, test: str) -> float | None:
    specification = results.specification
    chosen = next(each for each in specification.tests if each.key == test)
    return specification.non_inferiority_margin if specification.is_source(chosen) else None

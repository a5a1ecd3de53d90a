"""Forest plots: differences and their intervals, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2_sikd.figures.forest import Group, draw_groups, forest_height
from nnunetv2_sikd.report import formatting as f
from nnunetv2_sikd.report.canvas import WIDTH, Picture, as_svg, new_figure
from nnunetv2_sikd.report.pairing import MEAN_LABEL
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import PRIMARY


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


def _line(title: str, row: dict[Any, Any]) -> tuple[str, float, float, float]:
    return title, row["difference"], row["low"], row["high"]


def _label(label: str) -> str:
    return "mean" if label == MEAN_LABEL else label


def _margin(results: Results, test: str) -> float | None:
    specification = results.specification
    chosen = next(each for each in specification.tests if each.key == test)
    return specification.non_inferiority_margin if specification.is_source(chosen) else None

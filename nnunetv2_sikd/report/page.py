"""What the templates show: the same content for HTML and Markdown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nnunetv2_sikd import __version__
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.report import cost, provenance, score_tables
from nnunetv2_sikd.report.answer import answer
from nnunetv2_sikd.report.canvas import Picture
from nnunetv2_sikd.report.examples import choose_examples
from nnunetv2_sikd.report.forest import forest_plots
from nnunetv2_sikd.report.formatting import Table
from nnunetv2_sikd.report.intervals import ENOUGH_PATIENTS
from nnunetv2_sikd.report.methods import methods
from nnunetv2_sikd.report.overlays import Overlay, draw_overlay
from nnunetv2_sikd.report.paired import paired_plots
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import COMPARED, PRIMARY


@dataclass(frozen=True)
class Page:
    """Content of the report.

    Attributes:
        values: What the templates are filled with.
        pictures: All pictures, for the Markdown's folder.
        records: Of the trainings' checkpoints.
    """

    values: Mapping[str, Any]
    pictures: Sequence[Picture]
    records: Sequence[dict[str, Any]]


def make_page(results: Results) -> Page:
    """Put all numbers into tables, words and pictures."""
    layout, specification = results.layout, results.specification
    forests, paired = forest_plots(results), paired_plots(results)
    overlays, problems = _overlays(results)
    records = provenance.training_records(layout)
    shown = results.shown
    values = {
        "title": specification.title,
        "written": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "version": __version__,
        "answer": answer(results),
        "arms": [specification.arm_title(arm) for arm in results.arms],
        "baseline": specification.arm_title(specification.baseline),
        "shown": None if shown is None else specification.arm_title(shown),
        "scores": [(score_tables.metric_title(results, m), score_tables.paper_table(results, m)) for m in COMPARED],
        "differences": score_tables.difference_tables(results),
        "secondary": None if shown is None else score_tables.secondary_table(results, shown),
        "left_out": _left_out(results),
        "several_trainings": bool((results.compared()["trainings"] > 1).any()),
        "few_patients": _few_patients(results),
        "several_arms": len(set(results.compared()["arm"])) > 1,
        "margin": f"{specification.non_inferiority_margin:g}",
        "forests": forests,
        "paired": paired,
        "overlays": overlays,
        "overlay_problems": problems,
        "methods": methods(results),
        "failures": score_tables.failure_table(results),
        "failed": score_tables.failed_cases(results),
        "failure_dice": f"{score_tables.FAILURE_DICE:g}",
        "training_cost": cost.training_cost(layout),
        "prediction_cost": cost.prediction_cost(layout),
        "checkpoints": provenance.checkpoint_table(records),
        "settings": provenance.settings(layout),
        "versions": provenance.versions(),
        "hashes": provenance.data_hashes(layout),
        "missing": Table(
            ["Test set", "Training", "Trainer"],
            [[test.title or test.key, each.key, each.trainer] for test, each in results.scores.missing],
            range(3),
        ),
    }
    pictures = [*forests, *paired, *(picture for overlay in overlays for picture in overlay.pictures)]
    return Page(values, pictures, records)


def render(page: Page, template: str) -> str:
    """Fill a template.

    Args:
        page: The content.
        template: ``report.html`` or ``report.md``.
    """
    environment = Environment(
        loader=PackageLoader("nnunetv2_sikd.report"),
        autoescape=True,  # of text included in the page, too
        finalize=_markdown if template.endswith(".md") else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["cell"] = lambda text: Markup(_markdown(text).replace("|", "\\|"))
    environment.filters["fenced"] = _fenced
    return environment.get_template(template).render(page.values)


def _markdown(text: Any) -> Markup:
    """Text that Markdown shows as it is: titles and labels come from files of others, and may hold HTML or links."""
    if isinstance(text, Markup):
        return text
    return Markup(re.sub(r"[\\`<&\[\]]", r"\\\g<0>", " ".join(str(text).splitlines())))


def _fenced(text: str) -> Markup:
    """A block of code in Markdown, whose fence the text cannot close."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+|$", text))))
    return Markup(f"{fence}yaml\n{text}{fence}")


def _breakable(text: str) -> Markup:
    """Text with paths that may break after each folder."""
    return Markup(str(escape(text)).replace("/", "/<wbr>"))


def _overlays(results: Results) -> tuple[list[Overlay], list[str]]:
    """Cases in pictures; what cannot be drawn is told, since the numbers do not need it."""
    overlays, problems = [], []
    for example in choose_examples(results):
        try:
            overlays.append(draw_overlay(results.layout, example))
        except SIKDError as error:
            problems.append(
                f"{example.rank} case of {example.test.key} ({example.case}): {_without_folder(error, results)}"
            )
    return overlays, problems


def _without_folder(error: SIKDError, results: Results) -> str:
    """A page may be passed on: where the benchmark lies on this machine is nobody's business."""
    return str(error).replace(f"{results.layout.output}{os.sep}", "")


def _few_patients(results: Results) -> int:
    """The fewest patients of any interval over patients alone; 0 if all have enough for what the interval claims."""
    rows = results.compared()
    fewest = rows.loc[rows["trainings"] == 1, "patients"].min()
    return int(fewest) if fewest < ENOUGH_PATIENTS else 0


def _left_out(results: Results) -> list[str]:
    """What is in no difference, by test set and label."""
    rows = results.compared()
    lines = []
    for (test, label), group in rows.groupby(["test", "label"], sort=False):
        absent, unpaired = int(group["absent"].max()), int(group["unpaired"].max())
        told = []
        if absent:
            told.append(f"{absent} whose reference lacks the label")
        if unpaired:
            told.append(f"{unpaired} without a {PRIMARY.capitalize()} for every arm and training")
        if told:
            lines.append(f"{results.title(str(test))}, {label}: left out {' and '.join(told)} (volumes).")
    return lines

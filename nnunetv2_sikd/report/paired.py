"""Paired plots: a line per patient from the baseline's Dice to the shown arm's."""

from __future__ import annotations

import math
from textwrap import fill

import numpy as np

from nnunetv2_sikd.figures.drawing import BETTER, UNCLEAR, WORSE, plain
from nnunetv2_sikd.report.canvas import WIDTH, Picture, as_svg, new_figure
from nnunetv2_sikd.report.formatting import count
from nnunetv2_sikd.report.pairing import MEAN_LABEL, PatientScores, patient_scores
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import PRIMARY

_COLUMNS = 3
_LETTERS = 12  # of an arm's title in a line below its column


def paired_plots(results: Results) -> list[Picture]:
    """One picture per test set, a panel per label."""
    if results.shown is None:
        return []
    arms = (results.specification.baseline, results.shown)
    pictures = []
    for test in results.tests:
        labels = [label for label in results.labels(test.key) if label != MEAN_LABEL]
        scores = {label: patient_scores(results.frame, arms, test.key, label, PRIMARY) for label in labels}
        scores = {label: found for label, found in scores.items() if found.patients}
        if scores:
            pictures.append(_draw(results, test.key, scores))
    return pictures


def _draw(results: Results, test: str, scores: dict[str, PatientScores]) -> Picture:
    columns = min(_COLUMNS, len(scores))
    rows = math.ceil(len(scores) / columns)
    width = {1: 2.6, 2: 3.9}.get(columns, WIDTH)
    figure = new_figure(2.9 * rows, width)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    titles = [fill(results.specification.arm_title(arm), _LETTERS) for arm in next(iter(scores.values())).arms]
    told = []
    for axes, (label, found) in zip(panels, scores.items(), strict=False):
        pairs = found.values.mean(axis=1)  # over trainings: (2, patients)
        change = np.round(pairs[1] - pairs[0], 12)
        for pair, sign in zip(pairs.T, np.sign(change), strict=True):
            colour = {1.0: BETTER, -1.0: WORSE}.get(float(sign), UNCLEAR)
            axes.plot([0, 1], pair, color=colour, alpha=0.65, linewidth=1, marker="o", markersize=2.5)
        axes.plot([0, 1], pairs.mean(axis=1), color="black", linewidth=2.2, marker="D", markersize=5)
        axes.set_xticks([0, 1], titles)
        axes.set_xlim(-0.25, 1.25)
        axes.set_title(label, fontsize=10)
        plain(axes)
        better, worse = int((change > 0).sum()), int((change < 0).sum())
        told.append(f"{label}: {better} of {count(len(change), 'patient')} better, {worse} worse")
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("Dice", fontsize=9)
    caption = f"{results.title(test)}. {'; '.join(told)}. Blue: better, orange: worse, black: mean."
    alt = f"Dice of each patient, baseline and {titles[1]}. {'; '.join(told)}.".replace("\n", " ")
    return Picture(f"paired_{test}.svg", as_svg(figure), alt, caption, width)

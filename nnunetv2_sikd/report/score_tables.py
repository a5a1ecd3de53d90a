"""Scores, differences and failures as tables of text."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from nnunetv2_sikd.report import formatting as f
from nnunetv2_sikd.report.formatting import Table
from nnunetv2_sikd.report.pairing import MEAN_LABEL
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import COMPARED, PRIMARY

FAILURE_DICE = 0.5
_LISTED = 20


def metric_title(results: Results, metric: str) -> str:
    """A metric's name, with what belongs to it."""
    units = "/".join(dict.fromkeys(results.unit(test.key) for test in results.tests))
    tolerance = f"{results.specification.surface_tolerance:g}"
    return {
        "dice": "Dice",
        "surface_dice": f"Surface Dice ({tolerance} {units})",
        "hausdorff95": f"Hausdorff distance, 95th percentile ({units})",
    }[metric]


def paper_table(results: Results, metric: str) -> Table:
    """The table that a paper prints: arms × (test sets × labels), mean ± sd."""
    columns = [(test.key, label) for test in results.tests for label in results.labels(test.key)]
    chosen = results.summary[results.summary["metric"] == metric]
    rows = {(row["arm"], row["test"], row["label"]): row for row in chosen.to_dict("records")}
    several = bool((chosen["trainings"] > 1).any())
    note = "Mean ± standard deviation over patients" + (
        "; in brackets: standard deviation of the mean between trainings." if several else "."
    )
    return Table(
        ["Arm", *(f"{results.title(test)}: {_short(label)}" for test, label in columns)],
        [
            [results.specification.arm_title(arm), *(_cell(rows.get((arm, *column)), metric) for column in columns)]
            for arm in results.arms
        ],
        note=note,
    )


def difference_text(results: Results, arm: str) -> Table:
    """Dice differences of one arm from the baseline, with intervals and tests."""
    baseline = results.specification.arm_title(results.specification.baseline)
    headers = ["Test set", "Label", "Verdict", "Difference", "95 % interval", "p", "p (Holm)"]
    headers += [baseline, results.specification.arm_title(arm), "Patients", "Better / worse", "Trainings"]
    rows = [
        [
            results.title(row["test"]),
            _short(row["label"]),
            row["verdict"],
            f.signed(PRIMARY, row["difference"]),
            f.interval(PRIMARY, row["low"], row["high"]),
            f.p_value(row["p"]),
            f.p_value(row["p_holm"]),
            f.value(PRIMARY, row["mean_baseline"]),
            f.value(PRIMARY, row["mean_arm"]),
            str(row["patients"]),
            f"{row['better']} / {row['worse']}",
            str(row["trainings"]),
        ]
        for row in results.compared(arm).to_dict("records")
    ]
    return Table(headers, rows, 3)


def secondary_text(results: Results, arm: str) -> Table:
    """Differences of the other metrics of one arm."""
    rows = []
    for metric in COMPARED[1:]:
        for row in results.compared(arm, metric=metric).to_dict("records"):
            numbers = [f.signed(metric, row["difference"]), f.interval(metric, row["low"], row["high"])]
            title = metric_title(results, metric)
            rows.append([title, results.title(row["test"]), _short(row["label"]), row["verdict"], *numbers])
    return Table(["Metric", "Test set", "Label", "Verdict", "Difference", "95 % interval"], rows, 4)


def failure_table(results: Results) -> Table:
    """How often each arm misses a structure, finds one that is not there, or gets it badly wrong."""
    rows = []
    for test in results.tests:
        for label in results.labels(test.key):
            for arm in results.arms if label != MEAN_LABEL else []:
                frame = results.frame
                chosen = frame[(frame["test"] == test.key) & (frame["label"] == label) & (frame["arm"] == arm)]
                if len(chosen):
                    title = results.specification.arm_title(arm)
                    rows.append([results.title(test.key), label, title, *_count_failures(chosen)])
    note = (
        "Volumes × trainings. The means are over those whose reference has the label; false findings are counted here."
    )
    headers = ["Test set", "Label", "Arm", "Reference has it", f"Dice below {FAILURE_DICE:g}", "Missed altogether"]
    return Table([*headers, "Reference lacks it", "False findings"], rows, 3, note)


def failed_cases(results: Results) -> Table:
    """The lowest Dice values of baseline and shown arm."""
    arms = [results.specification.baseline, results.shown or results.specification.baseline]
    frame = results.frame
    annotated = frame["empty"].isin(["none", "prediction"])
    failed = frame[annotated & (frame[PRIMARY] < FAILURE_DICE) & frame["arm"].isin(arms)]
    failed = failed.sort_values([PRIMARY, "test", "case", "label", "arm", "training"])
    rows = [
        [
            row["case"],
            results.title(row["test"]),
            row["label"],
            results.specification.arm_title(row["arm"]),
            row["training"],
            f.value(PRIMARY, row[PRIMARY]),
        ]
        for row in failed.head(_LISTED).to_dict("records")
    ]
    more = len(failed) - len(rows)
    return Table(
        ["Case", "Test set", "Label", "Arm", "Training", "Dice"],
        rows,
        5,
        f"The {_LISTED} lowest; {more} more are in scores.csv." if more > 0 else "",
    )


def _cell(row: dict[Hashable, Any] | None, metric: str) -> str:
    if row is None or not row["patients"]:
        return f.NOTHING
    text = f"{f.value(metric, row['mean'])} ± {f.value(metric, row['sd_patients'])}"
    return text + (f" ({f.value(metric, row['sd_trainings'])})" if row["trainings"] > 1 else "")


def _count_failures(rows: pd.DataFrame) -> list[str]:
    empty = rows["empty"].value_counts()
    numbers = {state: int(empty.get(state, 0)) for state in ("none", "reference", "prediction", "both")}
    annotated = rows["empty"].isin(["none", "prediction"])
    poor = int((rows.loc[annotated, PRIMARY] < FAILURE_DICE).sum())
    lacking = numbers["reference"] + numbers["both"]
    return [str(n) for n in (int(annotated.sum()), poor, numbers["prediction"], lacking, numbers["reference"])]


def _short(label: str) -> str:
    return "mean" if label == MEAN_LABEL else label

"""Scores, differences and failures as tables of text."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from nnunetv2_sikd.report import formatting as f
from nnunetv2_sikd.report.formatting import Table
from nnunetv2_sikd.report.pairing import MEAN_LABEL
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.scores import DISTANCES
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
    note = "Mean ± standard deviation over patients"
    note += "; t: standard deviation of the mean between trainings" if several else ""
    note += "; m: median, since a structure that is missed counts as the diagonal" if metric in DISTANCES else ""
    return Table(
        ["Arm", *(_short(label) for _, label in columns)],
        [
            [results.specification.arm_title(arm), *(_cell(rows.get((arm, *column)), metric) for column in columns)]
            for arm in results.arms
        ],
        note=f"{note}.",
        groups=[("", 1), *((results.title(test.key), len(results.labels(test.key))) for test in results.tests)],
    )


def difference_tables(results: Results) -> list[tuple[str, Table]]:
    """Dice differences from the baseline with intervals and tests: one table for one arm, else one per test set."""
    arms = list(dict.fromkeys(results.compared()["arm"]))
    if len(arms) == 1:
        grouped = [(results.title(test.key), results.compared(test=test.key), "label") for test in results.tests]
        return [(f"{results.specification.arm_title(arms[0])}: Dice", _differences(results, "Label", grouped))]
    tables = []
    for test in results.tests:
        rows = results.compared(test=test.key)
        grouped = [(_short(label), rows[rows["label"] == label], "arm") for label in results.labels(test.key)]
        if len(rows):
            tables.append((f"{results.title(test.key)}: Dice", _differences(results, "Arm", grouped)))
    return tables


def _differences(results: Results, first: str, grouped: list[tuple[str, pd.DataFrame, str]]) -> Table:
    headers = [first, "Difference", "95 % interval", "Verdict", "p", "p (Holm)"]
    headers += [results.specification.arm_title(results.specification.baseline), "With arm", "Patients"]
    rows: list[list[str]] = []
    for heading, chosen, key in grouped:
        rows += [[heading]] if len(chosen) else []
        for row in chosen.to_dict("records"):
            name = _short(row["label"]) if key == "label" else results.specification.arm_title(row["arm"])
            rows.append(
                [
                    name,
                    f.signed(PRIMARY, row["difference"]),
                    f.interval(PRIMARY, row["low"], row["high"]),
                    row["verdict"],
                    f.p_value(row["p"]),
                    f.p_value(row["p_holm"]),
                    f.value(PRIMARY, row["mean_baseline"]),
                    f.value(PRIMARY, row["mean_arm"]),
                    str(row["patients"]),
                    f"{row['better']} / {row['worse']}",
                    str(row["trainings"]),
                ]
            )
    return Table([*headers, "Better / worse", "Trainings"], rows, (0, 3))


def secondary_table(results: Results, arm: str) -> Table:
    """Differences of the other metrics of one arm."""
    rows: list[list[str]] = []
    for metric in COMPARED[1:]:
        for test in results.tests:
            chosen = results.compared(arm, test.key, metric).to_dict("records")
            rows += [[f"{metric_title(results, metric)}: {results.title(test.key)}"]] if chosen else []
            for row in chosen:
                numbers = [f.signed(metric, row["difference"]), f.interval(metric, row["low"], row["high"])]
                rows.append([_short(row["label"]), *numbers, row["verdict"]])
    return Table(["Label", "Difference", "95 % interval", "Verdict"], rows, (0, 3))


def failure_table(results: Results) -> Table:
    """How often each arm misses a structure, finds one that is not there, or gets it badly wrong."""
    rows: list[list[str]] = []
    frame = results.frame
    for test in results.tests:
        for label in results.labels(test.key):
            chosen = frame[(frame["test"] == test.key) & (frame["label"] == label)]
            rows += [[f"{results.title(test.key)}: {label}"]] if len(chosen) else []
            for arm in dict.fromkeys(arm for arm in results.arms if (chosen["arm"] == arm).any()):
                title = results.specification.arm_title(arm)
                rows.append([title, *_count_failures(chosen[chosen["arm"] == arm])])
    note = "Volumes × trainings. The means are over those whose reference has the label."
    headers = ["Arm", f"Dice below {FAILURE_DICE:g}", "Missed altogether", "of", "False findings", "of"]
    return Table(headers, rows, note=note)


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
        range(5),
        f"The {_LISTED} lowest; {more} more are in scores.csv." if more > 0 else "",
    )


def _cell(row: dict[Hashable, Any] | None, metric: str) -> str:
    if row is None or not row["patients"]:
        return f.NOTHING
    more = [f"m {f.value(metric, row['median'])}"] if metric in DISTANCES else []
    more += [f"t {f.value(metric, row['sd_trainings'])}"] if row["trainings"] > 1 else []
    text = f"{f.value(metric, row['mean'])} ± {f.value(metric, row['sd_patients'])}"
    return f"{text} ({', '.join(more)})" if more else text


def _count_failures(rows: pd.DataFrame) -> list[str]:
    empty = rows["empty"].value_counts()
    numbers = {state: int(empty.get(state, 0)) for state in ("none", "reference", "prediction", "both")}
    annotated = rows["empty"].isin(["none", "prediction"])
    poor = int((rows.loc[annotated, PRIMARY] < FAILURE_DICE).sum())
    lacking = numbers["reference"] + numbers["both"]
    return [str(n) for n in (poor, numbers["prediction"], int(annotated.sum()), numbers["reference"], lacking)]


def _short(label: str) -> str:
    return "mean" if label == MEAN_LABEL else label

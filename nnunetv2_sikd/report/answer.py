"""The answer in plain words, made from the numbers alone."""

from __future__ import annotations

from typing import Any

from nnunetv2_sikd.report.formatting import count, interval, signed, value
from nnunetv2_sikd.report.pairing import MEAN_LABEL
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.tables import PRIMARY


def answer(results: Results) -> list[str]:
    """Sentences for the top of the report: unseen test sets first, then what the numbers cannot say."""
    shown, specification = results.shown, results.specification
    if shown is None:
        there = ", ".join(specification.arm_title(arm) for arm in results.arms)
        return [f"Nothing to compare yet: only {there} has results on any test set.", *_unfinished(results)]
    tests = sorted(results.tests, key=specification.is_source)
    sentences = []
    for test in tests:
        rows = {str(row["label"]): dict(row) for row in results.compared(shown, test.key).to_dict("records")}
        if rows:
            sentences.append(_about(results, test.key, rows, specification.is_source(test)))
    return [*sentences, _about_trainings(results, shown), *_other_arms(results, shown), *_unfinished(results)]


def _about(results: Results, test: str, rows: dict[str, dict[Any, Any]], is_source: bool) -> str:
    overall = rows[results.overall(test)]
    arm, baseline = (results.specification.arm_title(overall[key]) for key in ("arm", "baseline"))
    what = f"mean over {len(rows) - 1} labels" if overall["label"] == MEAN_LABEL else overall["label"]
    kind = "" if not is_source else " (same source as the training data)"
    text = (
        f"{results.title(test)}{kind}, {what}, {count(overall['patients'], 'patient')}: "
        f"Dice {value(PRIMARY, overall['mean_arm'])} with {arm}, {value(PRIMARY, overall['mean_baseline'])} with "
        f"{baseline}, difference {signed(PRIMARY, overall['difference'])} "
        f"(95 % interval {interval(PRIMARY, overall['low'], overall['high'])}): {_verdict(results, overall)}."
    )
    labels = [row for label, row in rows.items() if label != MEAN_LABEL]
    if len(labels) > 1:
        told = (f"{row['label']} {signed(PRIMARY, row['difference'])} ({row['verdict']})" for row in labels)
        text += f" By label: {', '.join(told)}."
    return text


def _verdict(results: Results, row: dict[Any, Any]) -> str:
    margin = results.specification.non_inferiority_margin
    return f"{row['verdict']} (margin {margin:g})" if "inferior" in row["verdict"] else str(row["verdict"])


def _about_trainings(results: Results, shown: str) -> str:
    rows = results.compared(shown)
    fewest, most = int(rows["trainings"].min()), int(rows["trainings"].max())
    if most == 1:
        return (
            "One training per arm: the intervals hold the variation between patients and not between trainings. "
            "Another seed can move a result by several points under shift: this is no evidence about other trainings."
        )
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"{number} trainings per arm: the intervals hold the variation between trainings and between patients."


def _other_arms(results: Results, shown: str) -> list[str]:
    others = len(results.others) - 1
    title = results.specification.arm_title(shown)
    further = "1 further arm is" if others == 1 else f"{others} further arms are"
    return [f"This is about {title}; {further} in the tables below."] if others > 0 else []


def _unfinished(results: Results) -> list[str]:
    missing = len(results.scores.missing)
    if not missing:
        return []
    specification = results.specification
    planned = len(list(specification.trainings())) * len(specification.tests)
    return [f"Unfinished benchmark: {planned - missing} of {planned} trainings × test sets have results."]

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_sikd.stress.scores import Score, curves, mean_dice, summary_table, under_shift
from nnunetv2_sikd.stress.shifts import SHIFTS


def scores(trainer: str, clean: float, loss: float, cases: int = 4) -> list[Score]:
    """Dice falls by ``loss`` a severity, case by case a little lower."""
    steps = [("", 0), *((shift.name, severity) for shift in SHIFTS for severity in (1, 2))]
    return [
        Score(trainer, f"case_{case}", shift, severity, "heart", clean - loss * severity - 0.01 * case)
        for case in range(cases)
        for shift, severity in steps
    ]


def test_labels_that_are_nowhere_do_not_count() -> None:
    rows = [Score("t", "a", "", 0, "LV", 0.8), Score("t", "a", "", 0, "RV", math.nan)]
    assert mean_dice(rows) == {("t", "a", "", 0): 0.8}


def test_curves_begin_without_shift() -> None:
    found = curves(scores("t", 0.9, 0.1), "t")
    assert list(found) == ["", *(shift.name for shift in SHIFTS)]
    for curve in found.values():
        assert curve == pytest.approx(np.array([0.885, 0.785, 0.685]))


def test_under_shift_is_the_mean_of_shifts_and_severities() -> None:
    assert under_shift(scores("t", 0.9, 0.1, cases=2), "t") == pytest.approx({"case_0": 0.75, "case_1": 0.74})


def test_class_levels_do_not_count() -> None:
    rows = [replace(row, dice=0.0) if row.shift == "class_levels" else row for row in scores("t", 0.9, 0.1, cases=2)]
    assert under_shift(rows, "t") == pytest.approx({"case_0": 0.75, "case_1": 0.74})
    assert curves(rows, "t")[""] == pytest.approx(np.array([0.895, 0.795, 0.695]))
    assert curves(rows, "t")["class_levels"] == pytest.approx(np.array([0.895, 0, 0]))


def test_table_compares_with_the_first() -> None:
    table = summary_table([*scores("stock", 0.9, 0.1), *scores("better", 0.9, 0.05)], ["stock", "better"])
    header, _, stock, better, *_ = table.splitlines()
    cells = [cell.strip() for cell in better.strip("|").split("|")]
    assert len(header.split("|")) == len(better.split("|"))
    assert cells[0] == "better"
    assert cells[1] == "0.885"
    assert set(cells[2:-1]) == {"0.810"}
    assert cells[-1] == "+0.075 (+0.075 to +0.075)"
    assert stock.rstrip(" |").endswith("0.735")
    assert "4 validation cases" in table


def test_rows_come_back() -> None:
    for score in (Score("t", "=case", "blur", 2, "LV", 0.25), Score("t", "a", "", 0, "LV", math.nan)):
        row = {key: "" if value != value else str(value) for key, value in score.row().items()}
        back = Score.from_row(row)
        assert back == score or (math.isnan(back.dice) and math.isnan(score.dice))

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.stress.scores import Score, by_seed, curves, mean_dice, summary_table, under_shift
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
    assert cells[1:3] == ["0.885", "+0.000 (+0.000 to +0.000)"]
    assert set(cells[3:-1]) == {"0.810"}
    assert cells[-1] == "+0.075 (+0.075 to +0.075)"
    assert stock.rstrip(" |").endswith("0.735")
    assert "4 validation cases" in table


def test_trainers_of_several_seeds_are_one_row_paired_by_seed() -> None:
    rows, trainers = [], []
    for seed, clean in (("_seed0", 0.9), ("_seed1", 0.8), ("_seed7", 0.5)):
        trainers.append(f"stock{seed}_5epochs")
        rows += scores(trainers[-1], clean, 0.1)
    for seed, clean in (("_seed1", 0.85), ("_seed0", 0.93)):
        trainers.append(f"jitter{seed}_5epochs")
        rows += scores(trainers[-1], clean, 0.1)
    assert by_seed(trainers)["jitter_5epochs"] == {"1": trainers[3], "0": trainers[4]}
    _, _, stock, jitter, *_ = summary_table(rows, trainers).splitlines()
    cells = [cell.strip() for cell in jitter.strip("|").split("|")]
    assert cells[:2] == ["jitter_5epochs (2 seeds)", f"{(0.93 + 0.85) / 2 - 0.015:.3f}"]
    # of the same seeds, 0.03 and 0.05; seed 7 has no partner
    assert cells[2].startswith("+0.040 (")
    assert cells[-1].startswith("+0.040 (")
    low, high = (float(end) for end in cells[2].partition("(")[2].strip(")").split(" to "))
    assert (low, high) == pytest.approx(interval(np.array([[0.03] * 4, [0.05] * 4])), abs=1e-3)
    assert stock.startswith("| stock_5epochs (3 seeds) |")


def test_no_common_seed_gives_no_difference() -> None:
    trainers = ["a_seed0", "a_seed1", "b_seed2", "b_seed3"]
    rows = [row for trainer in trainers for row in scores(trainer, 0.9, 0.1)]
    other = summary_table(rows, trainers).splitlines()[3]
    cells = [cell.strip() for cell in other.strip("|").split("|")]
    assert cells[0] == "b (2 seeds)"
    assert cells[2] == cells[-1] == ""


def test_rows_come_back() -> None:
    for score in (Score("t", "=case", "blur", 2, "LV", 0.25), Score("t", "a", "", 0, "LV", math.nan)):
        row = {key: "" if value != value else str(value) for key, value in score.row().items()}
        back = Score.from_row(row)
        assert back == score or (math.isnan(back.dice) and math.isnan(score.dice))

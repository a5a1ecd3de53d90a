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
    assert mean_dice(rows) == {"t": {("a", "", 0): 0.8}}


def test_curves_begin_without_shift() -> None:
    found = curves(mean_dice(scores("t", 0.9, 0.1))["t"])
    assert list(found) == ["", *(shift.name for shift in SHIFTS)]
    for curve in found.values():
        assert curve == pytest.approx(np.array([0.885, 0.785, 0.685]))


def test_under_shift_is_the_mean_of_shifts_and_severities() -> None:
    assert under_shift(mean_dice(scores("t", 0.9, 0.1, cases=2))["t"]) == pytest.approx(
        {"case_0": 0.75, "case_1": 0.74}
    )


def test_class_levels_do_not_count() -> None:
    rows = [replace(row, dice=0.0) if row.shift == "class_levels" else row for row in scores("t", 0.9, 0.1, cases=2)]
    dice = mean_dice(rows)["t"]
    assert under_shift(dice) == pytest.approx({"case_0": 0.75, "case_1": 0.74})
    assert curves(dice)[""] == pytest.approx(np.array([0.895, 0.795, 0.695]))
    assert curves(dice)["class_levels"] == pytest.approx(np.array([0.895, 0, 0]))


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_compares_with_the_first() -> None:
    table = summary_table([*scores("stock", 0.9, 0.1), *scores("better", 0.9, 0.05)], ["stock", "better"])
    header, _, stock, better, blank, compared, _, difference, *_ = table.splitlines()
    columns = 1 + 1 + len(SHIFTS) + 1
    assert {len(cells_of(line)) for line in (header, stock, better, compared, difference)} == {columns}
    assert blank == ""
    assert cells_of(header)[1:] == cells_of(compared)[1:]
    assert cells_of(stock) == ["stock", "0.885", *["0.735"] * (columns - 2)]
    assert cells_of(better) == ["better", "0.885", *["0.810"] * (columns - 2)]
    told = ["+0.000 (+0.000 to +0.000)", *["+0.075 (+0.075 to +0.075)"] * (columns - 2)]
    assert cells_of(difference) == ["better", *told]
    assert "4 validation cases, each counted as a patient of its own," in table


def test_each_shift_has_its_own_difference() -> None:
    rows = [replace(row, dice=0.2) if row.shift == "blur" else row for row in scores("other", 0.9, 0.1)]
    table = summary_table([*scores("stock", 0.9, 0.1), *rows], ["stock", "other"]).splitlines()
    found = dict(zip(cells_of(table[5]), cells_of(table[7]), strict=True))
    assert found["blur"].startswith("-0.535 (")
    assert found["noise"] == "+0.000 (+0.000 to +0.000)"
    assert found["all but class levels"].startswith(f"{-0.535 / (len(SHIFTS) - 1):+.3f} (")


def test_one_trainer_has_no_differences() -> None:
    table = summary_table(scores("stock", 0.9, 0.1), ["stock"])
    assert "minus" not in table
    assert len(table.splitlines()) == 5


def test_trainers_of_several_seeds_are_one_row_paired_by_seed() -> None:
    rows, trainers = [], []
    for seed, clean in (("_seed0", 0.9), ("_seed1", 0.8), ("_seed7", 0.5)):
        trainers.append(f"stock{seed}_5epochs")
        rows += scores(trainers[-1], clean, 0.1)
    for seed, clean in (("_seed1", 0.85), ("_seed0", 0.93)):
        trainers.append(f"jitter{seed}_5epochs")
        rows += scores(trainers[-1], clean, 0.1)
    assert by_seed(trainers)["jitter_5epochs"] == {"1": trainers[3], "0": trainers[4]}
    _, _, stock, jitter, _, _, _, difference, *_ = summary_table(rows, trainers).splitlines()
    assert cells_of(jitter)[:2] == ["jitter_5epochs (2 seeds)", f"{(0.93 + 0.85) / 2 - 0.015:.3f}"]
    assert stock.startswith("| stock_5epochs (3 seeds) |")
    cells = cells_of(difference)
    assert cells[0] == "jitter_5epochs (2 seeds)"
    # as many as have a partner, seen from the other side
    assert summary_table(rows, [*trainers[3:], *trainers[:3]]).splitlines()[7].startswith("| stock_5epochs (2 seeds) |")
    # of the same seeds, 0.03 and 0.05; seed 7 has no partner
    assert all(cell.startswith("+0.040 (") for cell in cells[1:])
    for cell in cells[1], cells[-1]:
        assert ends_of(cell) == pytest.approx(interval(np.array([[0.03] * 4, [0.05] * 4])), abs=1e-3)


def ends_of(cell: str) -> tuple[float, float]:
    low, high = (float(end) for end in cell.partition("(")[2].strip(")").split(" to "))
    return low, high


def test_no_common_seed_gives_no_difference() -> None:
    trainers = ["a_seed0", "a_seed1", "b_seed2", "b_seed3"]
    rows = [row for trainer in trainers for row in scores(trainer, 0.9, 0.1)]
    other = cells_of(summary_table(rows, trainers).splitlines()[7])
    assert other[0] == "b (2 seeds)"
    assert set(other[1:]) == {""}


def test_cases_of_one_patient_are_one() -> None:
    # Two patients, one with three cases that gain 0.3, 0.4, 0.5 and one with a case that gains nothing.
    gains = {"case_0": 0.3, "case_1": 0.4, "case_2": 0.5, "case_3": 0.0}
    stock = scores("stock", 0.5, 0.0)
    rows = [*stock, *(replace(row, trainer="better", dice=row.dice + gains[row.case]) for row in stock)]
    table = summary_table(rows, ["stock", "better"], lambda case: "b" if case == "case_3" else "a")
    cells = cells_of(table.splitlines()[7])
    assert all(cell.startswith("+0.200 (") for cell in cells[1:])
    # Means count patients alike too: rows of the first table differ by the same.
    stock_cells, better_cells = (cells_of(line)[1:] for line in table.splitlines()[2:4])
    assert [float(b) - float(s) for s, b in zip(stock_cells, better_cells, strict=True)] == pytest.approx(
        [0.2] * 11, abs=2e-3
    )
    assert ends_of(cells[1]) == pytest.approx(interval(np.array([[0.4, 0.0]])), abs=1e-3)
    assert "4 validation cases of 2 patients," in table


def test_rows_come_back() -> None:
    for score in (Score("t", "=case", "blur", 2, "LV", 0.25), Score("t", "a", "", 0, "LV", math.nan)):
        row = {key: "" if value != value else str(value) for key, value in score.row().items()}
        back = Score.from_row(row)
        assert back == score or (math.isnan(back.dice) and math.isnan(score.dice))

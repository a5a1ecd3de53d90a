"""Costs: a student's includes its teacher's, and nothing breaks where nothing was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetv2_sikd.report.cost import prediction_cost, teacher_of, training_cost
from nnunetv2_sikd.report.provenance import training_records
from tests.report.helpers import FakeBenchmark, make_benchmark


@pytest.fixture
def benchmark_(nnunet_folders: Path) -> FakeBenchmark:
    return make_benchmark(nnunet_folders, patients=2)


def test_a_student_pays_for_its_teacher(benchmark_: FakeBenchmark) -> None:
    rows = {row[0]: row[1:] for row in training_cost(benchmark_.layout).rows}
    # 15 epochs of 32, 36 and 30 seconds.
    assert rows["stock nnU-Net"] == ["Fake GPU", "15", "32.0 s", "8.0 min", "2.0 GiB", "8.0 min", "1.00 ×"]
    assert rows["SIKD student"] == ["Fake GPU", "15", "36.0 s", "9.0 min", "2.1 GiB", "16.5 min", "2.06 ×"]
    assert rows["SIKD student: its teacher"] == ["Fake GPU", "15", "30.0 s", "7.5 min", "2.1 GiB", "–", "–"]


def test_a_training_that_goes_on_has_no_cost_yet(benchmark_: FakeBenchmark) -> None:
    stock = next(iter(benchmark_.layout.specification.trainings()))
    (benchmark_.layout.fold(stock.trainer, stock.fold) / "checkpoint_final.pth").unlink()
    rows = {row[0]: row[1:] for row in training_cost(benchmark_.layout).rows}
    assert "stock nnU-Net" not in rows
    assert rows["SIKD student"][-2:] == ["16.5 min", "–"]


def test_prediction(benchmark_: FakeBenchmark) -> None:
    rows = prediction_cost(benchmark_.layout).rows
    assert rows[:2] == [["Source, own test patients"], ["stock nnU-Net", "cuda", "2.0 s", "1.5 GiB"]]
    assert rows[3] == ["Elsewhere, unseen"]
    assert len(rows) == 6


def test_the_teacher_has_the_students_seed_and_schedule(benchmark_: FakeBenchmark) -> None:
    stock, student = benchmark_.layout.specification.trainings()
    assert teacher_of(stock) is None
    assert teacher_of(student) == "nnUNetTrainer_SIKDTeacher_seed0_15epochs_100iterations"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"seconds_per_epoch": null, "peak_memory_mib": 3}'])
def test_missing_and_strange_records(benchmark_: FakeBenchmark, nnunet_folders: Path, content: str | None) -> None:
    for file in [*nnunet_folders.rglob("training_cost.json"), *nnunet_folders.rglob("prediction_cost.json")]:
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
    for row in training_cost(benchmark_.layout).rows:
        assert "nan" not in " ".join(row)
    assert not prediction_cost(benchmark_.layout).rows


class TestCheckpoints:
    def test_record_and_hash(self, benchmark_: FakeBenchmark) -> None:
        stock, student = training_records(benchmark_.layout)
        assert (stock["state"], student["state"]) == ("finished", "finished")
        assert len(stock["weights_sha256"]) == 64
        assert stock["weights_sha256"] != student["weights_sha256"]
        assert student["teacher_sha256"] == f"{1:064x}"
        # The shared encoder counts once.
        assert stock["parameters"] == 12

    def test_missing_and_damaged(self, benchmark_: FakeBenchmark) -> None:
        layout = benchmark_.layout
        stock, student = layout.specification.trainings()
        (layout.fold(stock.trainer, 0) / "checkpoint_final.pth").unlink()
        (layout.fold(student.trainer, 0) / "checkpoint_final.pth").write_bytes(b"cut")
        assert [record["state"] for record in training_records(layout)] == ["not there", "damaged"]

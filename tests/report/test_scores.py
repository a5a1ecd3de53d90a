"""Reading the results of a benchmark: all of them, or an error that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep, Machine, needed_steps, plan_steps
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation import evaluate_folder
from nnunetv2_sikd.files import write_json
from nnunetv2_sikd.report.scores import METRICS, read_scores
from tests.report.helpers import FakeBenchmark, make_benchmark


@pytest.fixture
def benchmark_(nnunet_folders: Path) -> FakeBenchmark:
    return make_benchmark(nnunet_folders, patients=3)


def test_everything_is_in_one_table(benchmark_: FakeBenchmark) -> None:
    scores = read_scores(benchmark_.layout)
    assert not scores.missing
    # Two arms; two volumes with two labels each, and one with one.
    assert len(scores.frame) == 2 * 3 * (2 * 2 + 1)
    first = scores.frame.iloc[0]
    assert (first["arm"], first["seed"], first["training"]) == ("stock", 0, "seed0_fold0")
    assert (first["case"], first["patient"], first["empty"]) == ("p00_v0", "p00", "none")


def test_reads_what_the_evaluation_writes(benchmark_: FakeBenchmark) -> None:
    layout = benchmark_.layout
    test, training = layout.specification.tests[1], next(layout.specification.trainings())
    evaluate_folder(
        layout.references(test),
        layout.predictions(test, training),
        prediction_dataset_json=layout.raw("Dataset901_Source") / "dataset.json",
        label_map=test.labels,
        output=layout.evaluation(test, training),
        num_processes=1,
    )
    frame = read_scores(layout).frame
    rows = frame[(frame["arm"] == "stock") & (frame["test"] == "Unseen")]
    assert list(rows["label"]) == ["blood"] * 3
    assert rows["dice"].between(0.5, 0.999).all()
    assert rows[list(METRICS)].notna().all(axis=None)


def test_a_missing_result_is_listed(benchmark_: FakeBenchmark) -> None:
    benchmark_.metrics("Unseen", "sikd_seed0_fold0").unlink()
    missing = read_scores(benchmark_.layout).missing
    assert [(test.key, training.key) for test, training in missing] == [("Unseen", "sikd_seed0_fold0")]


class TestAnEditedBenchmark:
    """The benchmark file has changed since its steps were run, and the report is written by hand."""

    @pytest.fixture(autouse=True)
    def steps(self, benchmark_: FakeBenchmark) -> list[BenchmarkStep]:
        """Every step was run, on another machine and by an earlier version."""
        layout = benchmark_.layout
        layout.record("any").parent.mkdir()
        steps = plan_steps(layout, benchmark_.file, Machine("mps", 7))
        for step in steps:
            command = [part for part in step.command if part != "--overwrite"]
            command = [part.replace(str(benchmark_.file.parent), "/elsewhere") for part in command]
            needed = {other.name: f"then {other.name}" for other in needed_steps(step, steps)}
            record = {"command": command, "needed": needed, "finished": f"then {step.name}"}
            write_json(layout.record(step.name), record)
        return steps

    def missing(self, benchmark_: FakeBenchmark, **changes: Any) -> list[tuple[str, str]]:
        content = {**yaml.safe_load(benchmark_.file.read_text(encoding="utf-8")), **changes}
        benchmark_.file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        scores = read_scores(Layout.of(benchmark_.file, benchmark_.layout.output))
        return [(test.key, training.arm) for test, training in scores.missing]

    def test_what_was_not_changed_is_reported(self, benchmark_: FakeBenchmark) -> None:
        assert self.missing(benchmark_, title="Another") == []

    def test_another_trainer(self, benchmark_: FakeBenchmark) -> None:
        arms = yaml.safe_load(benchmark_.file.read_text(encoding="utf-8"))["arms"]
        arms["sikd"] = "nnUNetTrainer_SIKDStudent_alpha1"
        assert self.missing(benchmark_, arms=arms) == [("Source", "sikd"), ("Unseen", "sikd")]

    def test_another_evaluation(self, benchmark_: FakeBenchmark) -> None:
        tests = yaml.safe_load(benchmark_.file.read_text(encoding="utf-8"))["tests"]
        tests[1]["slices"] = not tests[1].get("slices", False)
        assert self.missing(benchmark_, tests=tests) == [("Unseen", "stock"), ("Unseen", "sikd")]

    def test_another_schedule(self, benchmark_: FakeBenchmark) -> None:
        with pytest.raises(SIKDError, match=r"no metrics.csv of this benchmark's 4"):
            self.missing(benchmark_, schedule={"epochs": 7, "iterations": 7})

    def test_another_data_set_under_the_same_key(self, benchmark_: FakeBenchmark) -> None:
        raw = benchmark_.file.parent / "raw"
        shutil.copytree(raw / "Dataset902_Unseen", raw / "Dataset903_Other")
        tests = yaml.safe_load(benchmark_.file.read_text(encoding="utf-8"))["tests"]
        tests[1]["dataset"] = 903
        assert self.missing(benchmark_, tests=tests) == [("Unseen", "stock"), ("Unseen", "sikd")]

    @pytest.mark.parametrize("finished", ["later", None])
    def test_predicted_anew_and_not_evaluated_yet(self, benchmark_: FakeBenchmark, finished: str | None) -> None:
        file = benchmark_.layout.record("predict_Unseen_sikd_seed0_fold0")
        if finished is None:  # it is being predicted
            file.unlink()
        else:
            write_json(file, {**json.loads(file.read_text()), "finished": finished})
        assert self.missing(benchmark_) == [("Unseen", "sikd")]

    def test_an_evaluation_that_failed(self, benchmark_: FakeBenchmark) -> None:
        benchmark_.layout.record("evaluate_Source_stock_seed0_fold0").unlink()
        assert self.missing(benchmark_) == [("Source", "stock")]

    def test_without_the_data_all_there_is(self, benchmark_: FakeBenchmark, tmp_path: Path) -> None:
        (benchmark_.file.parent / "raw").rename(tmp_path / "away")
        (benchmark_.file.parent / "raw").mkdir()
        assert self.missing(benchmark_, surface_tolerance=9.0) == []


def test_no_result_at_all(nnunet_folders: Path) -> None:
    benchmark = make_benchmark(nnunet_folders, patients=2)
    for file in benchmark.layout.output.rglob("metrics.csv"):
        file.unlink()
    with pytest.raises(SIKDError, match=r"no metrics.csv of this benchmark's 4 .* run nnUNetv2_sikd benchmark first"):
        read_scores(benchmark.layout)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("dice,", "DICE,", "has no column dice"),
        ("p00_v0,wall,none", "p00_v0,wall,full", "column empty holds 'full'"),
        ("p01_v0,wall", "p00_v0,wall", "has case p00_v0 twice for one label"),
        ("p00_v0,wall,none,mm,0.", "p00_v0,wall,none,mm,zero", "column dice holds something that is no number"),
    ],
)
def test_a_damaged_file(benchmark_: FakeBenchmark, old: str, new: str, told: str) -> None:
    file = benchmark_.metrics("Source", "stock_seed0_fold0")
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(SIKDError) as raised:
        read_scores(benchmark_.layout)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert told in message
    assert "nnUNetv2_sikd evaluate" in message


def test_an_empty_or_cut_file(benchmark_: FakeBenchmark) -> None:
    file = benchmark_.metrics("Source", "stock_seed0_fold0")
    lines = file.read_text().splitlines()
    for content in ("", lines[0] + "\n"):
        file.write_text(content)
        with pytest.raises(SIKDError, match="run nnUNetv2_sikd evaluate again"):
            read_scores(benchmark_.layout)


def test_both_empty_is_nan_and_a_label_may_be_called_na(benchmark_: FakeBenchmark) -> None:
    file = benchmark_.metrics("Unseen", "stock_seed0_fold0")
    lines = file.read_text().replace(",blood,", ",NA,").splitlines()
    lines[1] = "p00_v0,NA,both,mm," + ",".join(["nan"] * 6) + ",0.0,0.0"
    file.write_text("\n".join(lines) + "\n")
    frame = read_scores(benchmark_.layout).frame
    rows = frame[(frame["arm"] == "stock") & (frame["test"] == "Unseen")]
    assert list(rows["label"]) == ["NA"] * 3
    assert rows["dice"].isna().tolist() == [True, False, False]


def test_a_pattern_that_finds_no_patient(benchmark_: FakeBenchmark) -> None:
    file = benchmark_.metrics("Source", "stock_seed0_fold0")
    file.write_text(file.read_text().replace("p00_v0", "healthy"))
    with pytest.raises(SIKDError, match="the case healthy"):
        read_scores(benchmark_.layout)

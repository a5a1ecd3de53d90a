"""``nnUNetv2_sikd benchmark``: checked first, then shown or run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from nnunetv2_sikd.benchmark import run as run_module
from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep
from nnunetv2_sikd.commands.main import main
from tests.benchmark.helpers import TARGET, write_benchmark, write_both


@pytest.fixture
def file(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark file, with the steps' commands cut off."""
    write_both(nnunet_folders)
    monkeypatch.chdir(nnunet_folders)

    def never(step: BenchmarkStep, steps: Sequence[BenchmarkStep], layout: Layout) -> None:
        print(f"would run {step.name}")

    monkeypatch.setattr(run_module, "run_one", never)
    return write_benchmark(nnunet_folders)


def test_dry_run_shows_all_and_leaves_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(file.parent.rglob("*"))
    assert main(["benchmark", str(file), "--dry-run"]) == 0
    assert sorted(file.parent.rglob("*")) == before
    printed = capsys.readouterr().out
    assert "[1/19] Plan and preprocess Dataset901_Source\n  $ nnUNetv2_sikd prepare -d Dataset901_Source" in printed
    assert "[19/19] Write the report" in printed


def test_part_of_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(file), "--dry-run", "--arms", "stock", "--seeds", "3"]) == 0
    printed = capsys.readouterr().out
    assert "nnUNetTrainer_seed3_2epochs_3iterations" in printed
    assert "SIKD" not in printed


def test_run_goes_through_all_steps(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(file), "-device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("would run ") == 19
    assert f"Report: {file.parent / 'tiny' / 'report' / 'report.html'}" in printed


@pytest.mark.parametrize("options", [["-device", "cpu"], ["--dry-run"]])
def test_nothing_runs_before_all_is_checked(file: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (file.parent / "raw" / TARGET / "labelsTs" / "a.nii.gz").unlink()
    assert main(["benchmark", str(file), *options]) == 1
    told = capsys.readouterr()
    assert f"Error: {file}, test set other: " in told.err
    assert "would run" not in told.out
    assert "$ " not in told.out


def test_gpu_that_is_not_there(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["benchmark", str(file)]) == 1
    assert "-device cuda: PyTorch finds none on this machine" in capsys.readouterr().err


def test_unknown_step(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", str(file), "--only", "trane"]) == 1
    assert "--only trane: no such step; --dry-run lists them" in capsys.readouterr().err

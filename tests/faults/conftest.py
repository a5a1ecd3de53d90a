"""Real commands on a tiny data set, to be disturbed; ``benchmarks/faults.py`` does it on a larger scale."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import SimpleITK
import torch

from benchmarks.faults import Disk, Job, Sandbox, can_mount, mounted, state
from nnunetv2_sikd.preprocessing.hook import write_class_averages
from tests.helpers import PreprocessedDataset, make_case, make_dataset_json, make_network, make_preprocessed_dataset

NUM_CASES = 25
# No forks, no SIGKILL and no limits on files there.
collect_ignore_glob = ["test_*.py"] if sys.platform == "win32" else []


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Empty nnU-Net folders in ``tmp_path / "run"``, for this process too."""
    sandbox = Sandbox(tmp_path)
    for name in ("raw", "preprocessed", "results", "out"):
        (sandbox.run / name).mkdir()
    for variable, value in sandbox.environment.items():
        monkeypatch.setenv(variable, value)
    return sandbox


@pytest.fixture
def disk(sandbox: Sandbox) -> Iterator[Disk]:
    """The sandbox's folder as an (empty) file system of its own."""
    if not can_mount():
        pytest.skip("this process may not mount file systems")
    with mounted(sandbox) as disk:
        for name in ("raw", "preprocessed", "results", "out"):
            (sandbox.run / name).mkdir()
        yield disk


def make_dataset(sandbox: Sandbox, num_cases: int = NUM_CASES) -> PreprocessedDataset:
    return make_preprocessed_dataset(sandbox.run / "preprocessed", dim=2, num_cases=num_cases)


def hook(dataset: PreprocessedDataset) -> Job:
    arguments = ("preprocess", "-d", dataset.name, "-c", dataset.configuration, "-np", "1")
    return Job("preprocess", arguments, lambda _, run: any(dataset.copies.glob("*.b2nd")), forked=True)


def undisturbed_copies(dataset: PreprocessedDataset) -> dict[str, str]:
    """State of the copies as an undisturbed run leaves them; they are gone again."""
    write_class_averages(dataset.name, dataset.configuration, num_processes=1)
    wanted = state(dataset.copies)
    for file in dataset.copies.iterdir():
        file.unlink()
    dataset.copies.rmdir()
    return wanted


def write_predictions(sandbox: Sandbox, cases: int = 30) -> Job:
    """References and predictions; returns the command that evaluates them."""
    folders = [sandbox.run / "raw" / name for name in ("labels", "predicted")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        for case in range(cases):
            _, label = make_case(3, seed=case + number)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(label), str(folder / f"case_{case:02d}.nii.gz"))
        content = make_dataset_json(regions=False, ignore=False, channels=1, num_cases=cases)
        (folder / "dataset.json").write_text(json.dumps(content))
    arguments = ("evaluate", *map(str, folders), "-o", str(sandbox.run / "out" / "evaluated"), "-np", "1")
    return Job("evaluate", arguments, lambda log, _: "Evaluation" in log, forked=True)


def write_student(sandbox: Sandbox) -> Job:
    """What a finished training of a student leaves, as far as export reads it; returns the command that exports it."""
    trainer = "nnUNetTrainer_SIKDStudent"
    model = sandbox.run / "results" / "Dataset901_Tiny" / f"{trainer}__nnUNetPlans__2d"
    fold = model / "fold_0"
    (fold / "validation").mkdir(parents=True)
    for file in ("plans.json", "dataset.json", "dataset_fingerprint.json", "fold_0/validation/summary.json"):
        (model / file).write_text("{}")
    (fold / "progress.png").write_bytes(b"picture")
    weights = {**make_network(2).state_dict(), "bulk": torch.rand(4_000_000, generator=torch.manual_seed(0))}
    checkpoint = {"network_weights": weights, "init_args": {"sikd": {"role": "student"}}, "trainer_name": trainer}
    torch.save(checkpoint, fold / "checkpoint_final.pth")
    arguments = ("export", "-d", "901", "-f", "0", "-o", str(sandbox.run / "out" / "student.zip"))
    return Job("export", arguments, lambda _, run: any((run / "out").iterdir()), forked=True)

"""Trainers where processes are spawned, whatever they are handed must pickle; and where text has an old code page."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import MakeTrainer, make_trainer, start_student  # noqa: F401

SCHEDULE = "1epochs_2iterations"


@pytest.fixture
def spawning() -> Iterator[None]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    """With regions, since those have transforms of their own."""
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3, regions=True)


def loaders(trainer: Any) -> list[Any]:
    """A trainer's data loaders, whose processes run."""
    trainer.initialize()
    return list(trainer.get_dataloaders())


def finish(loader: Any) -> None:
    if hasattr(loader, "_finish"):
        loader._finish()


@pytest.mark.usefixtures("spawning")
@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer_SIKDTeacher",
        "nnUNetTrainer_SIKDTeacher_onLabelMaps_DA5",
        "nnUNetTrainer_SIKDStudent_copyView",
    ],
)
def test_batches_of_spawned_processes(
    make_trainer: MakeTrainer,  # noqa: F811
    dataset: PreprocessedDataset,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    trainer = make_trainer(dataset, f"{name}_{SCHEDULE}")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    training, validation = loaders(trainer)
    try:
        for loader in (training, validation):
            batch = next(loader)
            channels = batch["data"].shape[1]
            assert torch.isfinite(batch["data"]).all()
            # A student's batches carry the label map, and in this view the copy.
            assert channels == (1 if "Teacher" in name else 3 if loader is training else 2)
    finally:
        finish(training)
        finish(validation)


@pytest.mark.usefixtures("spawning")
def test_seeded_batches_are_the_same_in_spawned_processes(
    make_trainer: MakeTrainer,  # noqa: F811
    dataset: PreprocessedDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"nnUNetTrainer_SIKDStudent_copyView_seed0_{SCHEDULE}"
    here, _ = loaders(make_trainer(dataset, name))
    expected = [next(here)["data"] for _ in range(3)]
    trainer = make_trainer(dataset, name)
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    training, validation = loaders(trainer)
    try:
        assert isinstance(training, MultiThreadedAugmenter)
        found = [next(training)["data"] for _ in range(3)]
    finally:
        finish(training)
        finish(validation)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_log_has_no_letter_that_an_old_code_page_lacks(
    make_trainer: MakeTrainer,  # noqa: F811
    nnunet_folders: Path,
) -> None:
    """nnU-Net writes its log in the system's encoding, and a training would end at a letter that this has not."""
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3)
    file = dataset.folder / "dataset.json"
    file.write_text(file.read_text().replace("shell", "\\u5fc3"))
    assert "心" in json.loads(file.read_text())["labels"]
    student = start_student(make_trainer, dataset, f"nnUNetTrainer_SIKDStudent_{SCHEDULE}")
    log = Path(student.log_file).read_bytes()
    assert log.isascii()
    assert log.count(b"u5fc3") == 2  # Dice and record

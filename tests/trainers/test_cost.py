from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_sikd.trainers.cost import FILE_NAME, device_name, peak_memory_mib
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, die_in, start_student

STOCK = "nnUNetTrainer_2epochs_2iterations"

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3)


def read(trainer: Any) -> dict[str, Any]:
    folder = Path(trainer.output_folder)
    assert not list(folder.glob("*.tmp"))
    return json.loads((folder / FILE_NAME).read_text())


@pytest.mark.parametrize("name", [STOCK, TEACHER, STUDENT, "nnUNetTrainer_seed0_2epochs_2iterations"])
def test_says_what_a_training_cost(dataset: PreprocessedDataset, make_trainer: MakeTrainer, name: str) -> None:
    if name == STUDENT:
        start_student(make_trainer, dataset, name)
    trainer = make_trainer(dataset, name)
    trainer.run_training()
    cost = read(trainer)
    assert cost["trainer"] == name
    assert cost["device"]
    assert cost["torch"] == torch.__version__
    assert (cost["training_processes"], cost["augmentation_processes"], cost["sessions"]) == (1, 0, 1)
    assert (cost["epochs"], cost["iterations_per_epoch"], len(cost["seconds_per_epoch"])) == (2, 2, 2)
    assert all(seconds > 0 for seconds in cost["seconds_per_epoch"])
    assert cost["total_seconds"] == pytest.approx(sum(cost["seconds_per_epoch"]), abs=0.01)
    assert cost["seconds_of_all_sessions"] >= cost["total_seconds"]
    assert cost["peak_memory_mib"].keys() == {"resident"}
    assert cost["peak_memory_mib"]["resident"] > 100


def test_a_continued_training_adds_to_it(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    killed = make_trainer(dataset, STOCK)
    die_in(killed, epoch=1, step=1)
    file = Path(killed.output_folder) / FILE_NAME
    cost = read(killed)
    assert (cost["sessions"], cost["epochs"]) == (1, 1)
    file.write_text(json.dumps({**cost, "seconds_of_all_sessions": 1000.0, "peak_memory_mib": {"resident": 1e6}}))

    continued = make_trainer(dataset, STOCK, resume=True)
    continued.load_checkpoint(str(Path(continued.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    total = read(continued)
    assert (total["sessions"], total["epochs"]) == (2, 2)
    assert total["seconds_per_epoch"][0] == cost["seconds_per_epoch"][0]
    assert 1000 < total["seconds_of_all_sessions"] < 1100
    assert total["total_seconds"] < 100
    assert total["peak_memory_mib"] == {"resident": 1e6}


@pytest.mark.parametrize("content", ['{"sessions": 1, "peak_', "[]"])
def test_a_damaged_file_does_not_keep_from_training(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, content: str
) -> None:
    killed = make_trainer(dataset, STOCK)
    die_in(killed, epoch=1, step=1)
    (Path(killed.output_folder) / FILE_NAME).write_text(content)
    continued = make_trainer(dataset, STOCK, resume=True)
    continued.load_checkpoint(str(Path(continued.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    assert (read(continued)["sessions"], read(continued)["epochs"]) == (1, 2)


def test_a_new_training_starts_anew(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    make_trainer(dataset, STOCK).run_training()
    again = make_trainer(dataset, STOCK)
    again.run_training()
    assert read(again)["sessions"] == 1


def test_peaks_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 5 * 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    peaks = peak_memory_mib(torch.device("cuda"))
    assert (peaks["cuda_allocated"], peaks["cuda_reserved"]) == (3, 5)
    assert device_name(torch.device("cuda")) == "some GPU"


def test_systems_without_proc_have_figures_too(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = peak_memory_mib(torch.device("cpu"))["resident"]
    monkeypatch.setattr("nnunetv2_sikd.trainers.cost._line_of", lambda file, key: None)
    # Where both are known they agree, but for what the parent process had.
    assert 0.9 * linux < peak_memory_mib(torch.device("cpu"))["resident"] < 10 * linux
    assert device_name(torch.device("cpu"))

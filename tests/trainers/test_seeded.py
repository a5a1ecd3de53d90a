"""A seed repeats a training, whatever makes its batches and whether or not it was interrupted."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers.seeded import SeededBatches, make_repeatable, seed_generators
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import MakeTrainer, die_in, finish, start_student

SCHEDULE = "3epochs_3iterations"
STOCK = f"nnUNetTrainer_seed1_{SCHEDULE}"
TEACHER = f"nnUNetTrainer_SIKDTeacher_seed1_{SCHEDULE}"
STUDENT = f"nnUNetTrainer_SIKDStudent_seed1_{SCHEDULE}"
COPY_VIEW = STUDENT.replace("_seed1", "_copyView_seed1")
STOCK_DA5 = f"nnUNetTrainerDA5_seed1_{SCHEDULE}"
STUDENT_DA5 = STUDENT.replace("_seed1", "_DA5_seed1")

Outcome = tuple[str, dict[str, str]]
Train = Callable[..., Outcome]

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=4)


@pytest.fixture
def train(dataset: PreprocessedDataset, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train through nnU-Net's loop, in so many augmentation processes; returns final weights and curves."""

    another = count(1000)

    def train(name: str, processes: int = 0, die_at: tuple[int, int] | None = None, resume: bool = False) -> Outcome:
        monkeypatch.setenv("nnUNet_n_proc_DA", str(processes))
        seed_generators(next(another))  # what was drawn before must not matter
        trainer = make_trainer(dataset, name, resume=resume)
        if hasattr(trainer, "teacher_class") and not resume:
            teacher = make_trainer(dataset, trainer.teacher_class.__name__)
            teacher.initialize()
            finish(teacher)
        if resume:
            trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        if die_at is not None:
            die_in(trainer, *die_at)
            return "", {}
        trainer.run_training()
        assert not multiprocessing.active_children()
        checkpoint = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")
        curves = {key: repr(value) for key, value in checkpoint["logging"].items() if "timestamps" not in key}
        return weights_hash(checkpoint["network_weights"]), curves

    return train


@pytest.mark.parametrize("name", [STOCK, TEACHER, STUDENT, COPY_VIEW, STOCK_DA5, STUDENT_DA5])
def test_a_seed_repeats_a_training_in_any_number_of_processes(train: Train, name: str) -> None:
    outcome = train(name)
    assert train(name) == outcome
    assert train(name, processes=1) == outcome
    assert train(name, processes=2) == outcome
    weights, curves = train(name.replace("_seed1", "_seed2"))
    assert weights != outcome[0]
    assert curves["train_losses"] != outcome[1]["train_losses"]


@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("name", [STOCK, TEACHER, STUDENT, STUDENT_DA5])
def test_a_killed_and_continued_training_equals_an_uninterrupted_one(train: Train, name: str, processes: int) -> None:
    outcome = train(name)
    train(name, processes, die_at=(2, 1))
    assert train(name, processes, resume=True) == outcome


def test_dropout_is_continued_too(dataset: PreprocessedDataset, train: Train) -> None:
    plans_file = dataset.folder / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    architecture.update(dropout_op="torch.nn.modules.dropout.Dropout2d", dropout_op_kwargs={"p": 0.3})
    plans_file.write_text(json.dumps(plans))
    outcome = train(STOCK)
    train(STOCK, 2, die_at=(1, 2))
    assert train(STOCK, 1, resume=True) == outcome


def test_trainers_of_one_seed_start_alike_and_see_the_same_batches(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer
) -> None:
    stock = make_trainer(dataset, STOCK)
    stock.on_train_start()
    student = start_student(make_trainer, dataset, STUDENT)
    assert weights_hash(student.network.state_dict()) == weights_hash(stock.network.state_dict())
    for _ in range(3):
        theirs, ours = next(stock.dataloader_train), next(student.dataloader_train)
        assert torch.equal(ours["data"], theirs["data"])
        assert torch.equal(ours["target"][0], theirs["target"][0])


def test_cascade_is_refused(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    dataset.become_second_stage()
    with pytest.raises(SIKDError, match="second stage of a cascade"):
        make_trainer(dataset, STOCK).initialize()


class Drawing:
    """A loader that returns what it draws."""

    def __iter__(self) -> Drawing:
        return self

    def __next__(self) -> dict[str, Any]:
        return {"drawn": (float(np.random.rand()), random.random(), float(torch.rand(1)))}


class TestSeededBatches:
    def test_depend_on_their_index_alone(self) -> None:
        everything = [next(batches) for batches in [SeededBatches(Drawing(), (1, 0, 0))] * 6]
        later = SeededBatches(Drawing(), (1, 0, 0), first=4)
        assert [next(later), next(later)] == everything[4:]
        assert len({batch["drawn"] for batch in everything}) == 6

    @pytest.mark.parametrize("processes", [1, 2, 3])
    def test_processes_share_them(self, processes: int) -> None:
        alone = SeededBatches(Drawing(), (1, 0, 0), first=10)
        shared = [SeededBatches(Drawing(), (1, 0, 0), first=10, processes=processes) for _ in range(processes)]
        for number, batches in enumerate(shared):
            batches.set_thread_id(number)
        assert [next(shared[k % processes]) for k in range(7)] == [next(alone) for _ in range(7)]

    @pytest.mark.parametrize("entropy", [(2, 0, 0), (1, 1, 0), (1, 0, 1)])
    def test_differ_between_seeds_streams_and_ranks(self, entropy: tuple[int, int, int]) -> None:
        assert next(SeededBatches(Drawing(), entropy)) != next(SeededBatches(Drawing(), (1, 0, 0)))

    def test_leave_other_random_numbers_alone(self) -> None:
        seed_generators(3, 0, 0, 0)
        expected = next(Drawing())
        seed_generators(3, 0, 0, 0)
        next(SeededBatches(Drawing(), (1, 0, 0)))
        assert next(Drawing()) == expected

    def test_survive_pickling(self) -> None:
        batches = SeededBatches(Drawing(), (1, 0, 0), first=2)
        assert next(pickle.loads(pickle.dumps(batches))) == next(batches)


@pytest.mark.parametrize("name", [STOCK, STOCK_DA5, TEACHER, STUDENT])
def test_no_transform_is_chosen_by_its_speed(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, name: str
) -> None:
    trainer = start_student(make_trainer, dataset, name) if name == STUDENT else make_trainer(dataset, name)
    if name != STUDENT:
        trainer.on_train_start()
    blurs = parts_of(trainer.dataloader_train.data_loader.loader.transforms)
    assert blurs
    assert not any(blur.benchmark for blur in blurs)


def parts_of(transform: Any) -> list[GaussianBlurTransform]:
    if isinstance(transform, GaussianBlurTransform):
        return [transform]
    inner = transform if isinstance(transform, list) else list(getattr(transform, "__dict__", {}).values())
    return [blur for part in inner for blur in parts_of(part)] if inner else []


def test_measuring_is_found_wherever_it_is_nested() -> None:
    blur = GaussianBlurTransform(benchmark=True)
    make_repeatable([("other", 1), (blur,)])
    assert blur.benchmark is False


@pytest.mark.parametrize("processes", [1, 7, 12])
def test_as_many_processes_as_without_a_seed(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", str(processes))
    monkeypatch.setattr("os.cpu_count", lambda: 64)  # nnU-Net takes no more processes than there are cores
    asked: dict[str, list[int]] = {"nnunet": [], "seeded": []}

    class Augmenter:
        """Notes how many processes it is asked for and starts none."""

        def __init__(self, whose: str, processes: int) -> None:
            asked[whose].append(processes)

        def __next__(self) -> None: ...

        def restart(self) -> None: ...

    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.NonDetMultiThreadedAugmenter",
        lambda num_processes, **_: Augmenter("nnunet", num_processes),
    )
    monkeypatch.setattr(
        "nnunetv2_sikd.trainers.seeded.MultiThreadedAugmenter",
        lambda loader, transform, num_processes, **_: Augmenter("seeded", num_processes),
    )
    for name in (STOCK.replace("_seed1", ""), STOCK):
        trainer = make_trainer(dataset, name)
        trainer.initialize()
        trainer.get_dataloaders()
    assert asked["nnunet"] == asked["seeded"]
    assert asked["nnunet"][0] == processes
    assert len(asked["nnunet"]) == 2

"""Trainers on tiny data, as nnU-Net's own command makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunetv2_sikd.environment import with_trainers
from tests.helpers import PreprocessedDataset

TEACHER = "nnUNetTrainer_SIKDTeacher_2epochs_2iterations"
STUDENT = "nnUNetTrainer_SIKDStudent_2epochs_2iterations"

MakeTrainer = Callable[..., Any]


@pytest.fixture
def make_trainer(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    """Make a trainer by name, found through ``nnUNet_extTrainer``, on the CPU and in this process alone."""
    for variable, value in with_trainers().items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    # Teachers here train for moments, or not at all.
    monkeypatch.setenv("nnUNet_SIKD_force_teacher", "1")

    def make(dataset: PreprocessedDataset, name: str, fold: int | str = 0, resume: bool = False) -> Any:
        return get_trainer_from_args(
            dataset.name, dataset.configuration, fold, name, "nnUNetPlans", resume, device=torch.device("cpu")
        )

    return make


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the progress pictures, which cost seconds an epoch."""
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda *_: None)
    monkeypatch.setattr("nnunetv2_sikd.trainers.student.plot_distillation", lambda *_: None)


def die_in(trainer: Any, epoch: int, step: int) -> None:
    """Train until a step of an epoch, and break off there."""
    train_step, left = trainer.train_step, epoch * trainer.num_iterations_per_epoch + step

    def dying_step(batch: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return train_step(batch)

    trainer.train_step = dying_step
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()


def finish(trainer: Any) -> Path:
    """Save an initialised trainer's network as if its training were over."""
    file = Path(trainer.output_folder) / "checkpoint_final.pth"
    trainer.save_checkpoint(str(file))
    return file


def start_student(make_trainer: MakeTrainer, dataset: PreprocessedDataset, name: str = STUDENT) -> Any:
    """A student about to train, whose (untrained) teacher is in place."""
    student = make_trainer(dataset, name)
    teacher = make_trainer(dataset, student.teacher_class.__name__)
    teacher.initialize()
    finish(teacher)
    student.on_train_start()
    return student

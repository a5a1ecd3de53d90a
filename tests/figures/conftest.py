"""A fold whose stock network, teacher and student are in place, untrained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from tests.helpers import PreprocessedDataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, finish, make_trainer  # noqa: F401

STOCK = "nnUNetTrainer_2epochs_2iterations"

FinishFold = Callable[..., dict[str, Path]]


@pytest.fixture
def finish_fold(make_trainer: MakeTrainer) -> FinishFold:  # noqa: F811
    """Save untrained networks of fold 0 as finished; the student's record names the teacher."""

    def save(dataset: PreprocessedDataset, student: str = STUDENT, *, stock: bool = True) -> dict[str, Path]:
        trainer = make_trainer(dataset, student)
        teacher = make_trainer(dataset, trainer.teacher_class.__name__)
        files = {}
        for each in (teacher, trainer):
            each.initialize()
        files["teacher"] = finish(teacher)
        taught_by = weights_hash(read_checkpoint(files["teacher"])["network_weights"])
        trainer.settle_record({**trainer.record("student"), "teacher_sha256": taught_by})
        files["student"] = finish(trainer)
        if stock:
            plain = make_trainer(dataset, STOCK)
            plain.initialize()
            files["stock"] = finish(plain)
        return files

    return save


def load(dataset: PreprocessedDataset) -> PlannedConfiguration:
    return PlannedConfiguration.load(dataset.name, dataset.configuration, "nnUNetPlans")

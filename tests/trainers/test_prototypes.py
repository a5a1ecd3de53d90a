"""Trainers of the search that are not in the package: ``benchmarks/prototypes``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from nnunetv2_sikd.distillation.loss import feature_mse
from nnunetv2_sikd.environment import TRAINER_VARIABLE
from nnunetv2_sikd.networks.penultimate import unwrap
from nnunetv2_sikd.transforms.class_jitter import WithOwnRandomness
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, MakeTrainer, finish

PROTOTYPES = Path(__file__).parents[2] / "benchmarks" / "prototypes"
VARIATION = "nnUNetTrainer_classVariation1_seed0_2epochs_2iterations"


@pytest.fixture
def make_prototype(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> MakeTrainer:
    monkeypatch.setenv(TRAINER_VARIABLE, os.pathsep.join([os.environ[TRAINER_VARIABLE], str(PROTOTYPES)]))
    return make_trainer


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3)


def test_all_stages_are_compared(dataset: PreprocessedDataset, make_prototype: MakeTrainer) -> None:
    student = make_prototype(dataset, f"{STUDENT}_allStages")
    teacher = make_prototype(dataset, student.teacher_class.__name__)
    teacher.initialize()
    finish(teacher)
    student.on_train_start()
    batch = next(student.dataloader_train)
    image, teacher_input, _ = student._teacher_input(batch["data"], batch["target"])
    teaching = student.teacher.network
    with torch.no_grad():
        theirs = teaching.decoder.features(teaching.encoder(teacher_input))
        network = unwrap(student.network)
        skips = network.encoder(image)
        own, x = [], skips[-1]
        for number, (up, stage) in enumerate(zip(network.decoder.transpconvs, network.decoder.stages, strict=True)):
            x = stage(torch.cat((up(x), skips[-(number + 2)]), 1))
            own.append(x)
        expected = sum(float(feature_mse(*pair)) for pair in zip(own, theirs, strict=True)) / len(own)
    parts = student.train_step(batch)["parts"]
    assert len(own) > 1
    assert float(parts[1]) == pytest.approx(expected, rel=1e-4)


def test_stronger_texture(dataset: PreprocessedDataset, make_prototype: MakeTrainer) -> None:
    trainer = make_prototype(dataset, f"{VARIATION}_texture3")
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    (varied,) = (
        s.transform.transform
        for s in loader.data_loader.loader.transforms.transforms
        if isinstance(s, WithOwnRandomness)
    )
    assert varied.jitter.texture == varied.contrast.texture == (0.5, 3.0)
    assert (varied.jitter.level_sd, varied.contrast.level_sd) == (0.7, 1.0)


def test_a_name_without_class_variation(dataset: PreprocessedDataset, make_prototype: MakeTrainer) -> None:
    trainer = make_prototype(dataset, "nnUNetTrainer_seed0_2epochs_2iterations_texture3")
    trainer.initialize()
    with pytest.raises(TypeError, match="class variation"):
        trainer.get_dataloaders()

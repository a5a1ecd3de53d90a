"""Trainers of the search that are not in the package: ``benchmarks/prototypes``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

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


def variation_of(trainer: Any) -> Any:
    """What varies an image in the trainer's own data loading, once it is drawn to be varied."""
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    steps = loader.data_loader.loader.transforms.transforms
    (varied,) = (step.transform.transform for step in steps if isinstance(step, WithOwnRandomness))
    return varied


def test_all_stages_are_compared(dataset: PreprocessedDataset, make_prototype: MakeTrainer) -> None:
    plans_file = dataset.folder / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    network = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    for each in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_conv_per_stage_decoder"):
        network[each].append(network[each][-1])
    network["n_stages"] += 1
    plans_file.write_text(json.dumps(plans))
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
        skips = unwrap(student.network).encoder(image)
        decoder = unwrap(student.network).decoder
        own: list[torch.Tensor] = []
        x = skips[-1]
        for number, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):
            x = stage(torch.cat((up(x), skips[-(number + 2)]), 1))
            own.append(x)
        # nnU-Net gives the coarsest output no weight.
        pairs = list(zip(own, theirs, strict=True))[1:]
        expected = sum(float(feature_mse(*pair)) for pair in pairs) / len(pairs)
    parts = student.train_step(batch)["parts"]
    assert len(pairs) > 1
    assert float(parts[1]) == pytest.approx(expected, rel=1e-4)
    student.train_step(next(student.dataloader_train))
    assert not student.loss.capture.maps
    assert not student.loss.capture.finest._maps


@pytest.mark.parametrize(
    ("prototype", "textures", "jitter_sd"),
    [
        ("texture3", (0.5, 3.0), 0.7),
        ("levels0p35", (0.5, 1.5), 0.35),
        ("levels1p4", (0.5, 1.5), 1.4),
    ],
)
def test_class_variation_of_another_strength(
    dataset: PreprocessedDataset,
    make_prototype: MakeTrainer,
    prototype: str,
    textures: tuple[float, float],
    jitter_sd: float,
) -> None:
    varied = variation_of(make_prototype(dataset, f"{VARIATION}_{prototype}"))
    assert varied.jitter.texture == varied.contrast.texture == textures
    assert (varied.jitter.level_sd, varied.contrast.level_sd) == (jitter_sd, 1.0)


def test_noise_of_twice_the_strength(dataset: PreprocessedDataset, make_prototype: MakeTrainer) -> None:
    noisy = VARIATION.replace("_seed", "_noise_seed")
    strengths = {}
    for name in (noisy, f"{noisy}_noise1"):
        share = variation_of(make_prototype(dataset, name)).transforms[1]
        strengths[name] = share.apply_probability, share.transform.max_sd
    assert strengths == {noisy: (0.5, 0.5), f"{noisy}_noise1": (0.5, 1.0)}


@pytest.mark.parametrize(
    ("trainer", "prototype", "message"),
    [
        ("nnUNetTrainer", "texture3", "changes class variation, without noise"),
        ("nnUNetTrainer_classJitter", "texture3", "changes class variation, without noise"),
        ("nnUNetTrainer_classVariation_noise", "texture3", "changes class variation, without noise"),
        ("nnUNetTrainer", "noise1", "changes class variation with noise"),
        ("nnUNetTrainer_classVariation", "noise1", "changes class variation with noise"),
    ],
)
def test_what_a_prototype_cannot_change_is_refused(
    dataset: PreprocessedDataset, make_prototype: MakeTrainer, trainer: str, prototype: str, message: str
) -> None:
    refusing = make_prototype(dataset, f"{trainer}_seed0_2epochs_2iterations_{prototype}")
    refusing.initialize()
    with pytest.raises(TypeError, match=message):
        refusing.get_dataloaders()


def test_only_the_published_loss_is_compared_in_all_stages(
    dataset: PreprocessedDataset, make_prototype: MakeTrainer
) -> None:
    with pytest.raises(TypeError, match="mean squared error"):
        make_prototype(dataset, f"{STUDENT.replace('_2ep', '_cosine_2ep')}_allStages").initialize()
    student = make_prototype(dataset, f"{STUDENT.replace('_2ep', '_classBalanced_2ep')}_allStages")
    teacher = make_prototype(dataset, student.teacher_class.__name__)
    teacher.initialize()
    finish(teacher)
    student.on_train_start()
    with pytest.raises(TypeError, match="classes weighted alike"):
        student.train_step(next(student.dataloader_train))

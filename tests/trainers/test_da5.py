"""nnU-Net's DA5 augmentation under teacher and student: flat where it must be, aligned everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.spatial.rot90 import Rot90Transform
from batchgeneratorsv2.transforms.spatial.transpose import TransposeAxesTransform
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.seeded import seed_generators
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import MakeTrainer, start_student

STUDENT = "nnUNetTrainer_SIKDStudent_DA5_2epochs_2iterations"
COPY_VIEW = "nnUNetTrainer_SIKDStudent_copyView_DA5_2epochs_2iterations"
TEACHER = "nnUNetTrainer_SIKDTeacher_DA5_2epochs_2iterations"
CASES = [(2, "labels"), (2, "regions+ignore"), (3, "regions"), (3, "ignore")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}d-{case[1]}")
def dataset(request: pytest.FixtureRequest, nnunet_folders: Path) -> PreprocessedDataset:
    dim, labels = request.param
    return make_preprocessed_dataset(
        nnunet_folders / "preprocessed",
        dim=dim,
        regions="regions" in labels,
        ignore="ignore" in labels,
        num_cases=3,
        channels=2,
    )


def levels(images: torch.Tensor) -> int:
    """Largest number of distinct values in any image of the batch and channel."""
    return max(len(channel.unique()) for image in images for channel in image)


def transforms_of(trainer: Any) -> list[Any]:
    steps = trainer.dataloader_train.data_loader.transforms.transforms
    return [getattr(step, "transform", step) for step in steps]


def assert_is_da5(trainer: Any) -> None:
    kinds = [type(step) for step in transforms_of(trainer)]
    assert {BlankRectangleTransform, Rot90Transform, TransposeAxesTransform} <= set(kinds)
    how = "configure_rotation_dummyDA_mirroring_and_inital_patch_size"
    assert getattr(type(trainer), how) is getattr(nnUNetTrainerDA5, how)


def test_teacher_sees_flat_classes_and_learns(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    teacher = make_trainer(dataset, TEACHER)
    teacher.on_train_start()
    assert_is_da5(teacher)
    for _ in range(20):
        batch = next(teacher.dataloader_train)
        assert levels(batch["data"]) <= 3 + teacher.label_manager.has_ignore_label
    assert np.isfinite(teacher.train_step(batch)["loss"])


@pytest.mark.parametrize("name", [STUDENT, COPY_VIEW])
def test_student_s_teacher_sees_flat_classes(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, name: str
) -> None:
    student = start_student(make_trainer, dataset, name)
    assert_is_da5(student)
    assert student.teacher.trainer_name == TEACHER
    for _ in range(10):
        batch = next(student.dataloader_train)
        image, teacher_input, _ = student._teacher_input(batch["data"], batch["target"])
        assert image.shape == teacher_input.shape
        assert levels(teacher_input) <= 3 + student.label_manager.has_ignore_label
        assert levels(image) > 10
    assert torch.isfinite(student.train_step(batch)["parts"]).all()


@pytest.mark.parametrize(
    ("patch_size", "dummy_2d"), [((24, 24), False), ((16, 16, 16), False), ((6, 24, 24), True), ((20, 30), False)]
)
def test_copy_stays_aligned_with_the_segmentation(patch_size: tuple[int, ...], dummy_2d: bool) -> None:
    dim = len(patch_size)
    transforms = getattr(variants, COPY_VIEW).get_training_transforms(
        patch_size, (-0.3, 0.3), None, tuple(range(dim)), dummy_2d, [False], False, [1], None, None
    )
    # One corner block: no rotation, transposition or mirroring maps it onto itself.
    label = torch.zeros(1, *patch_size, dtype=torch.int16)
    label[(0, *(slice(0, size // 2) for size in patch_size[:-1]), slice(0, patch_size[-1] // 3))] = 1
    image = torch.cat([torch.randn(1, *patch_size), label.float()])
    moved = 0
    for draw in range(60):
        seed_generators(draw)
        result = transforms(image=image.clone(), segmentation=label.clone())
        copy, segmentation = result["image"][1:], result["segmentation"]
        assert result["image"].shape == (2, *patch_size)
        foreground = segmentation > 0
        overlap = ((copy > 0.5) & foreground).sum() / ((copy > 0.5) | foreground).sum()
        assert overlap > 0.8, draw
        moved += bool(((label > 0) & foreground).sum() < 0.5 * foreground.sum())
    assert moved > 15

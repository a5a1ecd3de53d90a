"""Class jitter, class-balanced distillation and the paper's own regime, in trainers as nnU-Net makes them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.distillation.loss import cosine_distance, feature_mse, feature_variance, unexplained_variance
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.regimes import CrossEntropyOverAnnotated
from nnunetv2_sikd.trainers.seeded import seed_generators
from nnunetv2_sikd.trainers.settings import SIKDSettings
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import MakeTrainer, finish, start_student

SCHEDULE = "_2epochs_2iterations"
STUDENT = "nnUNetTrainer_SIKDStudent"
TEACHER = "nnUNetTrainer_SIKDTeacher"
CASES = [(2, "labels"), (2, "regions+ignore"), (3, "regions"), (3, "ignore")]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}d-{case[1]}")
def dataset(request: pytest.FixtureRequest, nnunet_folders: Path) -> PreprocessedDataset:
    dim, labels = request.param
    return make_dataset(nnunet_folders, dim=dim, regions="regions" in labels, ignore="ignore" in labels, channels=2)


def make_dataset(folders: Path, **kind: Any) -> PreprocessedDataset:
    return make_preprocessed_dataset(folders / "preprocessed", **{"dim": 2, "num_cases": 3, **kind})


def levels(images: torch.Tensor) -> int:
    """Largest number of distinct values in any image of the batch and channel."""
    return max(len(channel.unique()) for image in images for channel in image)


class TestClassJitter:
    def test_target_is_the_average_of_the_image_before(
        self, dataset: PreprocessedDataset, make_trainer: MakeTrainer
    ) -> None:
        student = start_student(make_trainer, dataset, f"{STUDENT}_classJitter1{SCHEDULE}")
        assert student.teacher.trainer_name == f"{TEACHER}{SCHEDULE}"
        batch = next(student.dataloader_train)
        image, teacher_input, _ = student._teacher_input(batch["data"], batch["target"])
        classes = 3 + student.label_manager.has_ignore_label
        before = batch["data"][:, 2:4]
        assert levels(teacher_input) <= classes < levels(image)
        assert not torch.allclose(image, before)
        # Averaged over the pixels that the average leaves alike, the image before has the target's levels.
        for channel, target in zip(before.flatten(0, 1), teacher_input.flatten(0, 1), strict=True):
            for value in target.unique():
                assert channel[target == value].mean().item() == pytest.approx(value.item(), abs=1e-4)
        assert torch.isfinite(student.train_step(batch)["parts"]).all()
        assert next(student.dataloader_val)["data"].shape[1] == 2 + student.label_manager.has_regions

    def test_copy_view_keeps_the_copy_for_its_target(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        batches = [
            next(start_student(make_trainer, dataset, f"{STUDENT}_copyView{jitter}_seed0{SCHEDULE}").dataloader_train)
            for jitter in ("", "_classJitter1")
        ]
        without, jittered = (batch["data"] for batch in batches)
        assert without.shape == jittered.shape
        assert torch.equal(without[:, 1], jittered[:, 1])
        assert not any(torch.allclose(*images) for images in zip(without[:, 0], jittered[:, 0], strict=True))

    def test_both_teach_and_learn_on_jittered_images(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        plain, student = (
            start_student(make_trainer, dataset, f"{STUDENT}{jitter}_seed0{SCHEDULE}")
            for jitter in ("", "_classJitterBoth1")
        )
        assert student.teacher.trainer_name == f"{TEACHER}_classJitter1_seed0{SCHEDULE}"
        without, batch = (next(each.dataloader_train) for each in (plain, student))
        image, teacher_input, _ = student._teacher_input(batch["data"], batch["target"])
        assert torch.equal(image, batch["data"])
        assert torch.equal(teacher_input, class_average(image, batch["target"][0]))
        assert not any(torch.allclose(*images) for images in zip(image, without["data"], strict=True))

    def test_teacher_s_levels_vary_and_stay_flat(self, dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
        plain, teacher = (
            make_trainer(dataset, f"{TEACHER}{jitter}_seed0{SCHEDULE}") for jitter in ("", "_classJitter1")
        )
        for each in (plain, teacher):
            each.on_train_start()
        for _ in range(5):
            without, images = (next(each.dataloader_train)["data"] for each in (plain, teacher))
            assert levels(images) <= 3 + teacher.label_manager.has_ignore_label
            assert not any(torch.allclose(*pair) for pair in zip(images, without, strict=True))

    @pytest.mark.parametrize("jitter", ["_classJitter1", "_classContrast1", "_classVariation1"])
    @pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainerDA5"])
    def test_stock_trainers(self, nnunet_folders: Path, make_trainer: MakeTrainer, trainer: str, jitter: str) -> None:
        dataset = make_dataset(nnunet_folders)
        stock, ours = (make_trainer(dataset, f"{trainer}{each}_seed0{SCHEDULE}") for each in ("", jitter))
        for each in (stock, ours):
            each.on_train_start()
        theirs, batch = (next(each.dataloader_train) for each in (stock, ours))
        assert torch.equal(theirs["target"][0], batch["target"][0])
        assert not any(torch.allclose(*images) for images in zip(theirs["data"], batch["data"], strict=True))
        assert np.isfinite(ours.train_step(batch)["loss"])

    def test_jitter_contrast_and_variation_differ(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        for trainer in ("nnUNetTrainer", TEACHER, STUDENT):
            images = []
            for jitter in ("_classJitter1", "_classContrast1", "_classVariation1"):
                name = f"{trainer}{jitter}_seed0{SCHEDULE}"
                if trainer == STUDENT:
                    each = start_student(make_trainer, dataset, name)
                else:
                    each = make_trainer(dataset, name)
                    each.on_train_start()
                images.append(next(each.dataloader_train)["data"][:, :1])
            for one, other in itertools.combinations(images, 2):
                assert not any(torch.allclose(*pair) for pair in zip(one, other, strict=True))

    def test_continues_what_an_older_version_began(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        teacher = make_trainer(dataset, f"{TEACHER}{SCHEDULE}")
        teacher.initialize()
        for setting in (
            "class_jitter",
            "jitter_levels",
            "jitter_target",
            "class_balanced",
            "feature_loss",
            "alpha_warmup",
            "alpha_decay",
        ):
            del teacher.my_init_kwargs["sikd"][setting]
        refuses_other_settings(
            make_trainer, dataset, teacher, SIKDSettings(class_jitter=0.5), r"class_jitter 0\.0 is now 0\.5"
        )

    def test_continues_a_student_of_an_older_version(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        student = start_student(make_trainer, dataset, f"{STUDENT}{SCHEDULE}")
        for setting in ("alpha_warmup", "alpha_decay", "deep_skips"):
            del student.my_init_kwargs["sikd"][setting]
        refuses_other_settings(
            make_trainer, dataset, student, SIKDSettings(alpha_warmup=True), "alpha_warmup False is now True"
        )


def refuses_other_settings(
    make_trainer: MakeTrainer, dataset: PreprocessedDataset, begun: Any, other: SIKDSettings, told: str
) -> None:
    """What was begun continues with the settings that it had, and with no others."""
    file = finish(begun)
    continued = make_trainer(dataset, type(begun).__name__)
    continued.load_checkpoint(str(file))
    continued.on_train_start()
    changed = make_trainer(dataset, type(begun).__name__)
    changed.load_checkpoint(str(file))
    changed.sikd = other
    with pytest.raises(SIKDError, match=told):
        changed.on_train_start()


def learnt(student: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Features of student and teacher in a training step, weights, label, and the distillation loss."""
    maps: list[torch.Tensor] = []
    student.network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    batch = next(student.dataloader_train)
    _, teacher_input, weights = student._teacher_input(batch["data"], batch["target"])
    teacher = student.teacher.features(teacher_input)
    loss = student.train_step(batch)["parts"][1].item()
    label = batch["data"][:, -1:].int() if student.label_manager.has_regions else batch["target"][0]
    return maps[0].detach(), teacher, weights, label, loss


class TestDeepSkips:
    def test_student_gets_the_features_of_the_teacher_with_skips(
        self, dataset: PreprocessedDataset, make_trainer: MakeTrainer
    ) -> None:
        student = start_student(make_trainer, dataset, f"{STUDENT}_deepSkips_linear{SCHEDULE}")
        decoder = student.teacher.network.decoder
        assert student.teacher.trainer_name == f"{TEACHER}_deepSkips{SCHEDULE}"
        assert decoder.kept == len(decoder.stages) - 1 > 0
        found, teacher, weights, _, loss = learnt(student)
        assert loss == pytest.approx(unexplained_variance(found, teacher, weights).item(), rel=1e-4)
        plain = start_student(make_trainer, dataset, f"{STUDENT}{SCHEDULE}")
        assert plain.teacher.network.decoder.kept == 0
        # What is kept is the stock network: the same keys and shapes.
        assert student.network.state_dict().keys() == plain.network.state_dict().keys()


class TestFeatureLosses:
    def test_class_balanced_weighs_classes_alike(self, dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
        student = start_student(make_trainer, dataset, f"{STUDENT}_classBalanced{SCHEDULE}")
        found, teacher, weights, label, loss = learnt(student)
        squares = (found - teacher).square().mean(1, keepdim=True)
        ignored = student.label_manager.ignore_label
        present = [value for value in label.unique().tolist() if value != ignored]
        assert len(present) > 1
        expected = sum(squares[label == value].mean().item() for value in present) / len(present)
        assert loss == pytest.approx(expected, rel=1e-4)
        assert feature_mse(found, teacher).item() != pytest.approx(expected, rel=1e-2)
        assert (weights[label == ignored] == 0).all() if ignored is not None else (weights > 0).all()

    @pytest.mark.parametrize("kind", ["normalised", "cosine", "linear"])
    def test_is_what_is_learnt(self, dataset: PreprocessedDataset, make_trainer: MakeTrainer, kind: str) -> None:
        student = start_student(make_trainer, dataset, f"{STUDENT}_{kind}{SCHEDULE}")
        found, teacher, weights, _, loss = learnt(student)
        expected = (unexplained_variance if kind == "linear" else cosine_distance)(found, teacher, weights)
        if kind == "normalised":
            expected = feature_mse(found, teacher, weights) / feature_variance(teacher, weights)
        assert loss == pytest.approx(expected.item(), rel=1e-4)

    def test_alpha_warms_up_over_the_first_quarter(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        student = start_student(make_trainer, dataset, f"{STUDENT}_alpha4_alphaWarmup_20epochs_2iterations")
        seen = []
        for student.current_epoch in range(20):
            student.on_train_epoch_start()
            seen.append(student.loss.alpha)
        assert seen[:5] == pytest.approx([4 * np.exp(-5 * (1 - t) ** 2) for t in (0, 0.2, 0.4, 0.6, 0.8)])
        assert seen[5:] == [4] * 15

    def test_alpha_warms_up_and_decays(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        names = (
            f"{STUDENT}_alpha4{course}_20epochs_2iterations" for course in ("_alphaWarmup_alphaDecay", "_alphaDecay")
        )
        both, decay = (start_student(make_trainer, dataset, name) for name in names)
        assert [both.alpha_of(epoch) for epoch in range(5, 20)] == [decay.alpha_of(epoch) for epoch in range(5, 20)]
        assert both.alpha_of(0) < 0.01 * decay.alpha_of(0)

    def test_alpha_decays_as_the_learning_rate(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders)
        student = start_student(make_trainer, dataset, f"{STUDENT}_alpha4_alphaDecay_10epochs_2iterations")
        seen = []
        for student.current_epoch in range(10):
            student.on_train_epoch_start()
            rate = student.optimizer.param_groups[0]["lr"] / student.initial_lr
            assert student.loss.alpha / 4 == pytest.approx(rate, rel=1e-6)
            seen.append(student.loss.alpha)
        assert seen == sorted(seen, reverse=True)
        constant = start_student(make_trainer, dataset, f"{STUDENT}_alpha4_10epochs_2iterations")
        constant.current_epoch = 9
        constant.on_train_epoch_start()
        assert constant.loss.alpha == 4


class TestGeometricCE:
    def test_intensities_stay(self) -> None:
        def transformed(name: str, seed: int) -> torch.Tensor:
            transforms = getattr(variants, name).get_training_transforms(
                (24, 28), (-math.pi, math.pi), None, (0, 1), False, [False], False, [1], None, None
            )
            seed_generators(seed)
            image = torch.full((1, 40, 44), 3.0)
            image[:, 22:, 25:] = 7.0
            result: torch.Tensor = transforms(image=image, segmentation=torch.zeros(1, 40, 44, dtype=torch.int16))
            return result["image"]  # type: ignore[call-overload, no-any-return]

        moved = set()
        for seed in range(30):
            image = transformed(f"nnUNetTrainer_geometricCE{SCHEDULE}", seed)
            assert image.min() >= 0  # in corners that turned in from outside
            assert image.max() <= 7 + 1e-4
            assert ((image == 3) | (image == 7)).float().mean() > 0.6
            moved.add(round(image.mean().item(), 3))
        assert len(moved) > 5
        stock = [transformed("nnUNetTrainer_seed0", seed) for seed in range(30)]
        assert any(((image != 3) & (image != 7)).all() for image in stock)

    @pytest.mark.parametrize("name", ["nnUNetTrainer", TEACHER])
    def test_loss_is_cross_entropy(self, nnunet_folders: Path, make_trainer: MakeTrainer, name: str) -> None:
        trainer = make_trainer(make_dataset(nnunet_folders), f"{name}_geometricCE{SCHEDULE}")
        trainer.on_train_start()
        assert isinstance(getattr(trainer.loss, "loss", trainer.loss), RobustCrossEntropyLoss)
        assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])

    def test_student(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        student = start_student(make_trainer, make_dataset(nnunet_folders), f"{STUDENT}_geometricCE{SCHEDULE}")
        assert student.teacher.trainer_name == f"{TEACHER}_geometricCE{SCHEDULE}"
        segmentation = student.loss.segmentation
        assert isinstance(getattr(segmentation, "loss", segmentation), RobustCrossEntropyLoss)
        assert torch.isfinite(student.train_step(next(student.dataloader_train))["parts"]).all()

    def test_regions_are_refused(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer(make_dataset(nnunet_folders, regions=True), f"nnUNetTrainer_geometricCE{SCHEDULE}")
        with pytest.raises(SIKDError, match="regions, and cross-entropy"):
            trainer.initialize()

    def test_nothing_annotated_gives_no_nan(self) -> None:
        loss = CrossEntropyOverAnnotated(3)
        logits = torch.randn(2, 3, 4, 4, requires_grad=True)
        label = torch.randint(0, 4, (2, 1, 4, 4))
        label[0, 0, 0] = torch.tensor([0, 1, 2, 3])
        assert torch.allclose(loss(logits, label), RobustCrossEntropyLoss(ignore_index=3)(logits, label))
        empty = loss(logits, torch.full((2, 1, 4, 4), 3))
        empty.backward()
        assert empty.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))

    def test_ignore_label(self, nnunet_folders: Path, make_trainer: MakeTrainer) -> None:
        dataset = make_dataset(nnunet_folders, ignore=True)
        student = start_student(make_trainer, dataset, f"{STUDENT}_geometricCE{SCHEDULE}")
        batch = next(student.dataloader_train)
        for scale in batch["target"]:
            scale[:] = student.label_manager.ignore_label
        assert student.train_step(batch)["parts"].tolist() == [0, 0]

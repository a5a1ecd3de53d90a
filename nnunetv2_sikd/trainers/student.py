"""The student: nnU-Net's network on the ordinary images, which also learns its teacher's features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import dummy_context
from torch import distributed as dist
from torch import nn

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.distillation.loss import DistillationLoss, class_weights
from nnunetv2_sikd.distillation.teacher import FrozenTeacher, load_teacher, teaching_is_forced
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import value_of
from nnunetv2_sikd.networks.penultimate import PenultimateCapture
from nnunetv2_sikd.preprocessing.hook import ensure_copies
from nnunetv2_sikd.preprocessing.paired_dataset import with_copies
from nnunetv2_sikd.trainers.base import nnUNetTrainer_SIKDBase
from nnunetv2_sikd.trainers.progress import plot_distillation
from nnunetv2_sikd.trainers.teacher import nnUNetTrainer_SIKDTeacher
from nnunetv2_sikd.transforms.arguments import training_arguments, validation_arguments
from nnunetv2_sikd.transforms.class_jitter import with_class_jitter
from nnunetv2_sikd.transforms.teacher_input import (
    AppendForTeacherTransform,
    TakeOutCopyTransform,
    insert_at_label_map,
    label_map_image,
)

_LOG_KEY = "sikd_distillation_losses"
_FEATURE_LOSSES = {
    "mse": "MSE",
    "normalised": "MSE to the teacher's variance",
    "cosine": "cosine distance",
    "linear": "unexplained variance",
}


class nnUNetTrainer_SIKDStudent(nnUNetTrainer_SIKDBase):
    """Train nnU-Net's network with L = L_seg + α · MSE(f_t, f_s) (Eqs. 2 and 3).

    The frozen teacher of the same fold sees the class average of the same crop under the same spatial
    augmentation. Only the student is saved: its checkpoint has the keys, shapes and size of the stock
    trainer's, plus a record of teacher and settings under ``init_args["sikd"]``.

    Raises:
        SIKDError: From ``on_train_start()``: the teacher is missing, unfinished, does not fit, or segments
            class-averaged validation images too poorly to teach.
    """

    teacher_class: ClassVar[type[nnUNetTrainer_SIKDTeacher]] = nnUNetTrainer_SIKDTeacher
    teacher: FrozenTeacher
    network: Any
    loss: Any

    def initialize(self) -> None:
        """Build everything as nnU-Net does, and give its logger the distillation loss."""
        super().initialize()
        self._register_log()

    def _build_loss(self) -> nn.Module:
        # nnU-Net calls this after wrapping the network and before its first use: the latest moment at which
        # a capture still becomes part of a compiled graph.
        capture = PenultimateCapture(self.network)
        return DistillationLoss(
            super()._build_loss(), self.sikd.alpha, capture, self.is_ddp, kind=self.sikd.feature_loss
        )

    # ---------------------------------------------------------------- data

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock augmentation, carrying the copy (view *copy*) and, for regions, the label map.

        With class jitter that is not to be in the target, the image as it was before comes along too.
        """
        arguments = training_arguments(args, kwargs)
        clean = cls.sikd.class_jitter > 0 and cls.sikd.jitter_target == "clean"
        stock = super().get_training_transforms(*args, **kwargs)
        pipeline = cls._with_label_map(stock, arguments, cls._copies() or clean)
        with_class_jitter(pipeline, cls.sikd.class_jitter, arguments, levels=cls.sikd.jitter_levels, keep=clean)
        if cls._copies():
            pipeline.transforms.insert(0, TakeOutCopyTransform())
        return pipeline

    @classmethod
    def get_validation_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock validation transforms, carrying the label map for regions."""
        stock = super().get_validation_transforms(*args, **kwargs)
        return cls._with_label_map(stock, validation_arguments(args, kwargs), others=False)

    @classmethod
    def _with_label_map(cls, pipeline: Any, arguments: dict[str, Any], others: bool) -> Any:
        regions = arguments["regions"] is not None
        if not (regions or others):
            return pipeline
        return insert_at_label_map(pipeline, AppendForTeacherTransform(with_label=regions))

    @classmethod
    def _copies(cls) -> bool:
        return cls.sikd.teacher_view == "copy" and cls.sikd.teacher_input == "class_average"

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's data sets; the training images come with their copies in the view *copy*."""
        training, validation = super().get_tr_and_val_datasets()
        if self._copies():
            training = with_copies(training, ensure_copies(self))
        return training, validation

    def _teacher_input(self, data: torch.Tensor, target: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Split what the loader delivers into student's image, teacher's input and weights of the distillation.

        Shape:
            - data: ``(B, C [+ C of the copy, or of the image before jitter] [+ 1 label map], *spatial)``
            - results: image and teacher's input ``(B, C, *spatial)``, weights ``(B, 1, *spatial)`` or None for equal
              ones
        """
        channels = self.num_input_channels
        image = data[:, :channels].contiguous()
        if self.label_manager.has_regions:
            label = data[:, -1:].to(torch.int16)
            data = data[:, :-1]
        else:
            label = target[0] if isinstance(target, list) else target
        source = data[:, channels:] if data.shape[1] > channels else image
        ignored = self.label_manager.ignore_label
        # Telling the number of labels spares the GPU a wait; negative ones are already background here.
        num_labels = int(max([*self.label_manager.all_labels, -1 if ignored is None else ignored]) + 1)
        weights = None if ignored is None else label != ignored
        if self.sikd.class_balanced:
            weights = class_weights(label, num_labels, ignored, ddp=self.is_ddp)
        if self.sikd.teacher_input == "image":
            return image, source.contiguous(), weights
        if self.sikd.teacher_input == "label_map":
            scaled = label_map_image(label, max(self.label_manager.foreground_labels))
            return image, scaled.expand_as(image).contiguous(), weights
        return image, class_average(source, label, ignore_label=ignored, num_labels=num_labels), weights

    # ---------------------------------------------------------------- training

    def on_train_start(self) -> None:
        """Load and check the teacher before anything expensive starts; check its Dice once data flows."""
        if not self.was_initialized:
            self.initialize()
        self.teacher = load_teacher(self, self.teacher_class)
        if self._do_i_compile():
            self.teacher.compile()
        taught_by = {"teacher_trainer": self.teacher.trainer_name, "teacher_sha256": self.teacher.sha256}
        self.settle_record({**self.record("student"), **taught_by})
        super().on_train_start()
        self._check_teacher_dice()
        self.print_to_log_file(f"SIKD student: {self.my_init_kwargs['sikd']!a}")

    def _check_teacher_dice(self) -> None:
        """Log the teacher's Dice per class; at the begin record it, and refuse a teacher that is blind to a class."""
        dice = {name: round(value, 4) for name, value in zip(self._class_names(), self._teacher_dice(), strict=True)}
        # In ASCII: nnU-Net writes its log in the system's encoding, which may lack letters of the labels' names.
        self.print_to_log_file(f"Teacher's pseudo Dice on {self.sikd.teacher_input} validation patches: {dice!a}")
        if "teacher_pseudo_dice" in self.my_init_kwargs["sikd"]:
            # Continued: this very teacher was accepted, on other patches. (They are drawn all the same, so that a
            # training with a seed goes on with the batches that it would have had.)
            return
        # A class of no validation patch has no Dice. A mean would hide the one class that is not seen.
        poor = [name for name, value in dice.items() if value < self.sikd.minimum_teacher_dice]
        self.my_init_kwargs["sikd"].update(teacher_pseudo_dice=dice, teacher_forced=bool(poor))
        if poor and not teaching_is_forced():
            self.stop_loaders()
            told = ", ".join(f"{name} ({dice[name]:.3f})" for name in poor)
            raise SIKDError(
                f"{self.teacher.file}: the teacher's pseudo Dice on its validation patches is below "
                f"{self.sikd.minimum_teacher_dice} for {told}, so its "
                "student would unlearn what it cannot see: train it longer (a trainer with more epochs), or set "
                "nnUNet_SIKD_force_teacher=1 to use it all the same"
            )

    def _teacher_dice(self) -> list[float]:
        """Pseudo Dice of each class or region on averaged validation patches, measured by nnU-Net's validation step."""
        student, training_loss = self.network, self.loss
        outputs = []
        self.network, self.loss = self.teacher.network, training_loss.segmentation
        try:
            with torch.no_grad():
                for _ in range(self.num_val_iterations_per_epoch):
                    batch = next(self.dataloader_val)
                    _, teacher_input, _ = self._teacher_input(*self._to_device(batch))
                    outputs.append(super().validation_step({**batch, "data": teacher_input}))
        finally:
            self.network, self.loss = student, training_loss
        counts = collate_outputs(outputs)
        sums = [
            torch.as_tensor(np.sum(counts[key], 0), device=self.device) for key in ("tp_hard", "fp_hard", "fn_hard")
        ]
        if self.is_ddp:
            for total in sums:
                dist.all_reduce(total)
        tp, fp, fn = (total.cpu().double().numpy() for total in sums)
        with np.errstate(invalid="ignore"):
            dice = 2 * tp / (2 * tp + fp + fn)
        # One false voxel of a class that no patch has is no Dice of 0: there was nothing to find.
        return [float(value) for value in np.where(tp + fn > 0, dice, np.nan)]

    def _class_names(self) -> list[str]:
        """Names of foreground classes or regions in the order of the network's outputs."""
        labels = {
            name: value for name, value in self.dataset_json["labels"].items() if name not in ("background", "ignore")
        }
        return (
            list(labels) if self.label_manager.has_regions else sorted(labels, key=lambda name: value_of(labels[name]))
        )

    def on_train_epoch_start(self) -> None:
        """Start an epoch as nnU-Net does, with the weight of the distillation that it has in this epoch."""
        super().on_train_epoch_start()
        self.loss.alpha = self.alpha_of(self.current_epoch)

    def alpha_of(self, epoch: int) -> float:
        """α in an epoch.

        With warm-up it is multiplied by exp(−5 (1 − t)²), t from 0 to 1 over the first quarter of the training; with
        decay by (1 − progress)^0.9, as nnU-Net's learning rate is.

        Args:
            epoch: Counted from 0.

        Reference:
            The ramp of the warm-up: Laine and Aila, Temporal ensembling for semi-supervised learning, ICLR 2017.
        """
        alpha, progress = self.sikd.alpha, epoch / self.num_epochs
        if self.sikd.alpha_warmup:
            alpha *= math.exp(-5 * (1 - min(1, 4 * progress)) ** 2)
        if self.sikd.alpha_decay:
            alpha *= (1 - progress) ** 0.9
        return alpha

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's training step on the student, whose loss also sees the teacher's features."""
        data, target = self._to_device(batch)
        image, teacher_input, weights = self._teacher_input(data, target)
        on_cuda = self.device.type == "cuda"
        # Before the student's forward pass, so that the teacher's activations are free by then.
        with torch.autocast("cuda", enabled=True) if on_cuda else dummy_context():
            self.loss.expect(self.teacher.features(teacher_input), weights)
        try:
            result = super().train_step({**batch, "data": image, "target": target})
        finally:
            self.loss.forget()
        return {**result, "parts": self.loss.last_parts}

    def loss_parts(self, result: dict[str, Any]) -> dict[str, float]:
        """Segmentation and (unweighted) distillation loss of the last step; in validation there is only the first."""
        if not self.network.training:
            return super().loss_parts(result)
        segmentation, distillation = self.loss.last_parts.tolist()
        return {"segmentation loss": segmentation, "distillation loss": distillation}

    def _to_device(self, batch: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        data, target = batch["data"].to(self.device, non_blocking=True), batch["target"]
        if isinstance(target, list):
            return data, [scale.to(self.device, non_blocking=True) for scale in target]
        return data, target.to(self.device, non_blocking=True)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step, with nnU-Net's loss, on the student's channels alone."""
        return super().validation_step({**batch, "data": batch["data"][:, : self.num_input_channels].contiguous()})

    # ---------------------------------------------------------------- logging

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log both losses apart; nnU-Net's curves show the segmentation loss, comparable to stock's."""
        parts = torch.stack([output["parts"] for output in train_outputs])
        segmentation = parts[:, 0].cpu().numpy()
        mean = parts.mean(0)
        if self.is_ddp:
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        super().on_train_epoch_end([{"loss": value} for value in segmentation])
        distillation = float(mean[1])
        self.logger.log(_LOG_KEY, distillation, self.current_epoch)
        self.print_to_log_file(
            f"segmentation_loss {float(mean[0]):.4f}, distillation_loss {distillation:.4f} "
            f"(times alpha {self.loss.alpha:g}: {self.loss.alpha * distillation:.4f})"
        )

    def on_epoch_end(self) -> None:
        """nnU-Net's end of an epoch, plus a picture of both losses in ``progress_sikd.png``."""
        super().on_epoch_end()
        if self.local_rank == 0:
            plot_distillation(
                self.logger.get_value("train_losses", step=None),
                self.logger.get_value(_LOG_KEY, step=None),
                f"{_FEATURE_LOSSES[self.sikd.feature_loss]}, α = {self.loss.alpha:.3g}",
                self.output_folder,
            )

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Continue from a checkpoint; teacher and settings are compared once the training starts."""
        super().load_checkpoint(filename_or_checkpoint)
        self._register_log()

    def _register_log(self) -> None:
        """Give nnU-Net's logger our key, filled as far as its own: an unfilled one would blank its plot."""
        values = self.logger.local_logger.my_fantastic_logging
        known = len(values["train_losses"])
        ours = values.setdefault(_LOG_KEY, [])
        ours.extend([float("nan")] * (known - len(ours)))

"""Ways to train that come with any trainer: other augmentation, another loss."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.robust_ce_loss import RobustCrossEntropyLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from torch import nn

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.transforms.arguments import training_arguments
from nnunetv2_sikd.transforms.class_jitter import JitterLevels, with_class_jitter


class ClassJitter(nnUNetTrainer):
    """nnU-Net's trainer on images some of whose classes have random levels and textures.

    Teachers and students have this among their settings; here it comes without a teacher, as a control and,
    with levels of *either* kind and noise, as what is recommended for cardiac MR of another contrast (docs/benchmarks).
    """

    class_jitter: ClassVar[float] = 0.25
    """Share of the images that are varied, 0 to 1."""
    jitter_levels: ClassVar[JitterLevels] = "moved"
    """Whether levels are moved, redrawn whatever they were, or either, image by image."""
    jitter_noise: ClassVar[bool] = False
    """Whether half of the varied images get noise, too."""

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock augmentation, followed by the jitter."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        arguments = training_arguments(args, kwargs)
        return with_class_jitter(
            pipeline, cls.class_jitter, arguments, levels=cls.jitter_levels, noise=cls.jitter_noise
        )


class CrossEntropyOverAnnotated(RobustCrossEntropyLoss):
    """Mean cross-entropy over the annotated pixels, and 0 where there are none, for which torch has NaN.

    Args:
        ignore_label: Value of pixels that are not annotated.
    """

    def __init__(self, ignore_label: int) -> None:
        super().__init__(reduction="sum", ignore_index=ignore_label)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits ``(B, classes, *spatial)`` and labels ``(B, 1, *spatial)``."""
        total: torch.Tensor = super().forward(input, target)
        return total / (target != self.ignore_index).sum().clamp(min=1)


class GeometricCE(nnUNetTrainerCELoss):
    """The regime of the SIKD paper: geometric augmentation only, cross-entropy.

    nnU-Net's own augmentation of intensities already does much of what the paper's gains are measured against.
    """

    def _build_loss(self) -> nn.Module:
        """Build nnU-Net's cross-entropy loss.

        Raises:
            SIKDError: The labels are regions, which overlap.
        """
        if self.label_manager.has_regions:
            raise SIKDError(
                f"{self.plans_manager.dataset_name}: its labels are regions, and cross-entropy ({type(self).__name__}) "
                "takes no classes that overlap; choose a trainer without _geometricCE"
            )
        loss: Any = super()._build_loss()
        several = isinstance(loss, DeepSupervisionWrapper)
        if self.label_manager.ignore_label is not None:
            annotated = CrossEntropyOverAnnotated(self.label_manager.ignore_label)
            loss = DeepSupervisionWrapper(annotated, loss.weight_factors) if several else annotated
        if several and self.is_ddp and not self._do_i_compile():
            # As in nnU-Net's own loss: without any weight DDP misses the gradients of the last output.
            weights = [*loss.weight_factors[:-1], 1e-6]
            loss = DeepSupervisionWrapper(loss.loss, [weight / sum(weights) for weight in weights])
        built: nn.Module = loss
        return built

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock augmentation without what changes intensities."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        pipeline.transforms = [step for step in pipeline.transforms if not _changes_intensities(step)]
        return pipeline


def _changes_intensities(step: BasicTransform) -> bool:
    if isinstance(step, OneOfTransform):
        return all(_changes_intensities(one) for one in step.list_of_transforms)
    return isinstance(step.transform if isinstance(step, RandomTransform) else step, ImageOnlyTransform)

"""Ways to train that come with any trainer: other augmentation, another loss."""

from __future__ import annotations

from typing import Any, ClassVar

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerCELoss import nnUNetTrainerCELoss
from torch import nn

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.transforms.arguments import training_arguments
from nnunetv2_sikd.transforms.class_jitter import with_class_jitter


class ClassJitter(nnUNetTrainer):
    """nnU-Net's trainer on images some of whose classes have random levels and textures.

    Teachers and students have this among their settings; here it is the control without a teacher.
    """

    class_jitter: ClassVar[float] = 0.5
    """Share of the images that are varied, 0 to 1."""

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock augmentation, followed by the jitter."""
        pipeline = super().get_training_transforms(*args, **kwargs)
        return with_class_jitter(pipeline, cls.class_jitter, training_arguments(args, kwargs)["ignore_label"])


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
        loss: nn.Module = super()._build_loss()
        return loss

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

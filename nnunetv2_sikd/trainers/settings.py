"""What a SIKD trainer does, in one value that is logged, saved and compared on resuming."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from nnunetv2_sikd.distillation.loss import FeatureLoss
from nnunetv2_sikd.transforms.class_jitter import JitterLevels

TeacherInput = Literal["class_average", "image", "label_map"]
TeacherView = Literal["patch", "copy"]
JitterTarget = Literal["clean", "jittered"]


@dataclass(frozen=True)
class SIKDSettings:
    """Settings of a teacher or student.

    Attributes:
        alpha: Weight of the distillation loss (the paper's α).
        teacher_input: What the teacher sees: class averages (the method), or as controls (the paper's
            Table 6) the original images or the label maps.
        teacher_view: Where class averages come from while the teacher teaches. *patch*: the student's
            augmented patch is averaged, so the target follows its augmented appearance (the authors' way).
            *copy*: the stored copy is cut and spatially augmented with the patch and flattened again with
            the augmented label, so the target is free of intensity augmentation.
        minimum_teacher_dice: Pseudo Dice (0 to 1) that a teacher must reach on class-averaged validation
            patches for every class. In one synthetic training a teacher blind to one of four classes left its
            student with a Dice of 0.01 for it, where stock nnU-Net had 0.95.
        class_jitter: Share (0 to 1) of this trainer's images whose classes get random levels and textures
            (:class:`~nnunetv2_sikd.transforms.class_jitter.ClassJitterTransform`).
        jitter_levels: Whether these levels are the image's own, *moved*, or *redrawn* whatever they were
            (:class:`~nnunetv2_sikd.transforms.class_jitter.ClassContrastTransform`), or *either*, image by image
            (:class:`~nnunetv2_sikd.transforms.class_jitter.ClassVariationTransform`).
        jitter_target: What a student with jitter is to match: features of the image as it was before (*clean*, by a
            teacher that was trained without jitter), or of the average of what the student sees (*jittered*, by one
            that was trained with it).
        feature_loss: How features are compared: their mean squared error (*mse*, Eq. 3), the same divided by the
            variance of the teacher's (*normalised*), the *cosine* distance of the feature vectors, or the share of the
            teacher's variance that no *linear* function of the student's features explains.
        alpha_warmup: Whether α rises from nearly 0 over the first quarter of the training, so that the first steps,
            whose features mean little yet, are the segmentation's.
        alpha_decay: Whether α falls to 0 over the training as nnU-Net's learning rate does, so that it ends with the
            segmentation alone.
        class_balanced: Whether each class has the same weight in the distillation loss, instead of each pixel.
        deep_skips: Whether the teacher keeps its skip connections but that of full resolution; without any (the
            method), all that it knows passes its bottleneck.
    """

    alpha: float = 2.0
    teacher_input: TeacherInput = "class_average"
    teacher_view: TeacherView = "patch"
    minimum_teacher_dice: float = 0.3
    class_jitter: float = 0.0
    jitter_levels: JitterLevels = "moved"
    jitter_target: JitterTarget = "clean"
    class_balanced: bool = False
    feature_loss: FeatureLoss = "mse"
    alpha_warmup: bool = False
    alpha_decay: bool = False
    deep_skips: bool = False


@dataclass(frozen=True)
class Schedule:
    """Length of a training, as nnU-Net counts it.

    Attributes:
        epochs: Number of epochs.
        iterations: Training iterations per epoch; a fifth as many in validation, nnU-Net's proportion.
    """

    epochs: int = 1000
    iterations: int = 250

    @property
    def validation_iterations(self) -> int:
        """Validation iterations per epoch."""
        return max(1, round(self.iterations / 5))

    @property
    def save_every(self) -> int:
        """Epochs between checkpoints: nnU-Net's 50, or ten checkpoints in all where that comes to more."""
        return min(50, max(1, self.epochs // 10))

    def on_top(self, share: float) -> Schedule:
        """A schedule of longer epochs, in which as many images remain unaltered as this one has.

        Args:
            share: Share of the images that are altered, 0 to 1 (exclusive).
        """
        return replace(self, iterations=round(self.iterations / (1 - share)))

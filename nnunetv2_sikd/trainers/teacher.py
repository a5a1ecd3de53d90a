"""The teacher: the student's network without skips, trained on class-averaged images."""

from __future__ import annotations

from typing import Any

import blosc2
import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.networks.skipless import SkiplessUNet
from nnunetv2_sikd.preprocessing.hook import ensure_copies
from nnunetv2_sikd.trainers.base import nnUNetTrainer_SIKDBase
from nnunetv2_sikd.transforms.arguments import training_arguments, validation_arguments
from nnunetv2_sikd.transforms.class_jitter import with_class_jitter
from nnunetv2_sikd.transforms.teacher_input import (
    ClassAverageTransform,
    LabelMapTransform,
    insert_at_label_map,
    label_map_image,
)


class nnUNetTrainer_SIKDTeacher(nnUNetTrainer_SIKDBase):
    """Train a teacher on the class-averaged copies with nnU-Net's own loss and schedule.

    The copies are made if missing (``nnUNetv2_sikd preprocess`` makes them beforehand). Stock augmentation
    is followed by another averaging with the augmented label, so that what reaches the network is exactly
    piecewise constant. The augmentation still matters: it varies shapes and class levels.

    Raises:
        SIKDError: From ``initialize()``, for cascades, other networks than U-Nets, and data that cannot be
            averaged.
    """

    def initialize(self) -> None:
        """Point nnU-Net to the teacher's cases, then build everything as it does."""
        if self.sikd.teacher_input == "class_average" and not self.is_cascaded:
            self.preprocessed_dataset_folder = str(ensure_copies(self))
        super().initialize()
        self.settle_record(self.record("teacher"))

    def on_train_start(self) -> None:
        """Start as nnU-Net does; refuse to continue a training that began with other settings."""
        if not self.was_initialized:
            self.initialize()
        self.settle_record(self.record("teacher"))
        super().on_train_start()
        self.print_to_log_file(f"SIKD teacher: {self.my_init_kwargs['sikd']}")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's final validation, on the teacher's kind of input."""
        if self.sikd.teacher_input == "label_map":
            # In training a transform makes the label map, from the patch alone.
            self.dataset_class = _LabelMapDataset
        super().perform_actual_validation(save_probabilities)

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """nnU-Net's network for these plans with its skip connections removed, all or that of full resolution."""
        return SkiplessUNet(
            nnUNetTrainer.build_network_architecture(
                plans_manager,
                configuration_manager,
                num_input_channels,
                num_output_channels,
                enable_deep_supervision,
            ),
            deep_skips=cls.sikd.deep_skips,
            averages=cls.sikd.teacher_input == "class_average",
        )

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock augmentation, its result turned into the teacher's input."""
        arguments = training_arguments(args, kwargs)
        pipeline = cls._with_teacher_input(super().get_training_transforms(*args, **kwargs), arguments)
        # In front of the averaging.
        return with_class_jitter(pipeline, cls.sikd.class_jitter, arguments, levels=cls.sikd.jitter_levels)

    @classmethod
    def get_validation_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        """The stock validation transforms, their result turned into the teacher's input."""
        stock = super().get_validation_transforms(*args, **kwargs)
        return cls._with_teacher_input(stock, validation_arguments(args, kwargs))

    @classmethod
    def _with_teacher_input(cls, pipeline: ComposeTransforms, arguments: dict[str, Any]) -> ComposeTransforms:
        if cls.sikd.teacher_input == "class_average":
            return insert_at_label_map(pipeline, ClassAverageTransform(arguments["ignore_label"]))
        if cls.sikd.teacher_input == "label_map":
            return insert_at_label_map(pipeline, LabelMapTransform(max(arguments["foreground_labels"])))
        return pipeline


class _LabelMapDataset(nnUNetDatasetBlosc2):
    """Cases whose image is their label map: validation input of the label-map control."""

    def load_case(self, identifier: str) -> tuple[np.ndarray, blosc2.NDArray, None, dict[str, Any]]:
        """Load a case; data is ``(C, Z, Y, X)`` float32 in [0, 1]."""
        data, seg, seg_prev, properties = super().load_case(identifier)
        # nnU-Net records where each label lies: its keys are the labels, or regions of labels.
        labels = [
            value for key in properties["class_locations"] for value in (key if isinstance(key, tuple) else (key,))
        ]
        scaled = label_map_image(torch.from_numpy(seg[:].astype(np.int16)), max(labels)).numpy()
        return np.repeat(scaled, data.shape[0], axis=0), seg, seg_prev, properties

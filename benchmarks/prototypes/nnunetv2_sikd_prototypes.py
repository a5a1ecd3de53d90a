"""Trainers of the search that were measured and are not in the package (docs/benchmarks/search.md, variation.md).

export nnUNet_extTrainer="$nnUNet_extTrainer:$PWD/benchmarks/prototypes"
nnUNetv2_train 101 2d 0 -tr nnUNetTrainer_SIKDStudent_seed0_20epochs_150iterations_allStages

A prototype's name is that of a trainer of the package, followed by what it changes:

_allStages: a student that matches its teacher in all stages of the decoder, the mean of their squared errors.
_texture3: class variation whose gains of the texture reach 3 in place of 1.5.
"""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_sikd.distillation.loss import DistillationLoss, feature_mse
from nnunetv2_sikd.networks.penultimate import PenultimateCapture, unwrap
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.transforms.class_jitter import WithOwnRandomness


class AllStages(nnUNetTrainer):
    """A student whose features are compared in every stage of the decoder. On one device, uncompiled, without weights
    of pixels."""

    def _build_loss(self) -> nn.Module:
        loss: Any = super()._build_loss()
        return _AllStagesLoss(loss.segmentation, loss.alpha, _AllCaptured(self.network))

    def on_train_start(self) -> None:
        super().on_train_start()
        network = self.teacher.network  # type: ignore[attr-defined]
        features = torch.no_grad()(lambda x: network.decoder.features(network.encoder(x)))
        self.teacher.features = features  # type: ignore[attr-defined]


class _AllCaptured(PenultimateCapture):
    """What each stage of the decoder makes, the finest last."""

    def __init__(self, network: Any) -> None:
        self._maps = []
        for stage in unwrap(network).decoder.stages:
            stage.register_forward_hook(lambda stage, inputs, output: self._remember(stage, (output,)))

    def take_all(self) -> list[torch.Tensor]:
        maps = list(self._maps)
        self._maps.clear()
        return maps


class _AllStagesLoss(DistillationLoss):
    def forward(self, output: Any, target: Any) -> torch.Tensor:
        segmentation: torch.Tensor = self.segmentation(output, target)
        if self._expected is None:
            return segmentation
        pairs = list(zip(self.capture.take_all(), self._expected[0], strict=True))
        distillation = torch.stack([feature_mse(student, teacher) for student, teacher in pairs]).mean()
        self.last_parts = torch.stack([segmentation.detach().float(), distillation.detach()])
        return segmentation + self.alpha * distillation


class Texture3(nnUNetTrainer):
    """Class variation with stronger texture."""

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        pipeline = super().get_training_transforms(*args, **kwargs)
        variations = [step.transform.transform for step in pipeline.transforms if isinstance(step, WithOwnRandomness)]
        if not variations:
            raise TypeError("_texture3 is named after a trainer with class variation")
        for variation in variations:
            variation.jitter.texture = variation.contrast.texture = (0.5, 3.0)
        return pipeline


_PROTOTYPES = {"_allStages": AllStages, "_texture3": Texture3}


def __getattr__(name: str) -> Any:
    for suffix, prototype in _PROTOTYPES.items():
        if name.endswith(suffix):
            changed = getattr(variants, name.removesuffix(suffix))
            return type(name, (prototype, changed), {"__module__": __name__})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

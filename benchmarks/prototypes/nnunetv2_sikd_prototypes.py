"""Trainers of the search that were measured and are not in the package (docs/benchmarks/search.md, variation.md).

A prototype's name is that of a trainer of the package, followed by what it changes:

_allStages: a student that matches its teacher in several stages of the decoder, the mean of their squared errors.
_texture3: class variation whose gains of the texture reach 3 in place of 1.5.
_levels0p35, _levels1p4: class variation whose jitter moves levels half as far, twice as far (in place of 0.7 standard
    deviations of the image).
_noise1: class variation with noise that is twice as strong (up to 1 standard deviation of the image, not 0.5).

export nnUNet_extTrainer="$nnUNet_extTrainer:$PWD/benchmarks/prototypes" nnUNet_compile=f
nnUNetv2_train 101 2d 0 -tr nnUNetTrainer_SIKDTeacher_seed0_20epochs_150iterations -device cpu
nnUNetv2_train 101 2d 0 -tr nnUNetTrainer_SIKDStudent_seed0_20epochs_150iterations_allStages -device cpu
nnUNetv2_train 101 2d 0 -tr nnUNetTrainer_classVariation_seed0_40epochs_200iterations_texture3 -device cpu
"""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_sikd.distillation.loss import DistillationLoss, feature_mse
from nnunetv2_sikd.networks.penultimate import PenultimateCapture, unwrap
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.transforms.class_jitter import ClassVariationTransform, WithOwnRandomness


class AllStages(nnUNetTrainer):
    """A student of the published loss whose features are compared in every stage that nnU-Net supervises: all but the
    coarsest. On one device, uncompiled."""

    def _build_loss(self) -> nn.Module:
        loss: Any = super()._build_loss()
        if loss.kind != "mse" or self.is_ddp or self._do_i_compile():
            raise TypeError("_allStages: the mean squared error, one device and nnUNet_compile=f only")
        return _AllStagesLoss(loss.segmentation, loss.alpha, _StagesCaptured(loss.capture, self.network))

    def on_train_start(self) -> None:
        super().on_train_start()
        network = self.teacher.network
        features = torch.no_grad()(lambda x: network.decoder.features(network.encoder(x))[1:])
        self.teacher.features = features


class _StagesCaptured:
    """What the decoder's stages but the coarsest and the finest make, and the finest, which is captured already."""

    def __init__(self, finest: PenultimateCapture, network: Any) -> None:
        self.finest = finest
        self.maps: list[torch.Tensor] = []
        for stage in unwrap(network).decoder.stages[1:-1]:
            stage.register_forward_hook(self._remember)

    def _remember(self, stage: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if stage.training:
            self.maps.append(output)

    def take(self) -> list[torch.Tensor]:
        maps = [*self.maps, self.finest.take()]
        self.maps.clear()
        return maps

    def clear(self) -> None:
        self.maps.clear()
        self.finest.clear()


class _AllStagesLoss(DistillationLoss):
    def forward(self, output: Any, target: Any) -> torch.Tensor:
        segmentation: torch.Tensor = self.segmentation(output, target)
        if self._expected is None:
            return segmentation
        teacher, weights = self._expected
        if weights is not None:
            raise TypeError("_allStages: neither an ignore label nor classes weighted alike")
        pairs = zip(self.capture.take(), teacher, strict=True)
        distillation = torch.stack([feature_mse(*pair) for pair in pairs]).mean()
        self.last_parts = torch.stack([segmentation.detach().float(), distillation.detach()])
        return segmentation + self.alpha * distillation


class OtherVariation(nnUNetTrainer):
    """Class variation of another strength."""

    texture = (0.5, 1.5)
    jitter_sd = 0.7

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        pipeline = super().get_training_transforms(*args, **kwargs)
        inner = [step.transform.transform for step in pipeline.transforms if isinstance(step, WithOwnRandomness)]
        variations = [each for each in inner if isinstance(each, ClassVariationTransform)]
        if not variations:
            raise TypeError(f"{cls.__name__}: changes class variation, without noise, and nothing else")
        for variation in variations:
            variation.jitter.texture = variation.contrast.texture = cls.texture
            variation.jitter.level_sd = cls.jitter_sd
        return pipeline


class Texture3(OtherVariation):
    texture = (0.5, 3.0)


class Levels0p35(OtherVariation):
    jitter_sd = 0.35


class Levels1p4(OtherVariation):
    jitter_sd = 1.4


class Noise1(nnUNetTrainer):
    """Noise beside class variation, twice as strong."""

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> BasicTransform:
        pipeline = super().get_training_transforms(*args, **kwargs)
        inner = [step.transform.transform for step in pipeline.transforms if isinstance(step, WithOwnRandomness)]
        beside = [each.transforms[1].transform for each in inner if isinstance(each, ComposeTransforms)]
        if not beside:
            raise TypeError(f"{cls.__name__}: changes class variation with noise, and nothing else")
        for noise in beside:
            noise.max_sd = 1.0
        return pipeline


_PROTOTYPES = {
    "_allStages": AllStages,
    "_texture3": Texture3,
    "_levels0p35": Levels0p35,
    "_levels1p4": Levels1p4,
    "_noise1": Noise1,
}


def __getattr__(name: str) -> Any:
    for suffix, prototype in _PROTOTYPES.items():
        if name.endswith(suffix):
            changed = getattr(variants, name.removesuffix(suffix))
            return type(name, (prototype, changed), {"__module__": __name__})
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

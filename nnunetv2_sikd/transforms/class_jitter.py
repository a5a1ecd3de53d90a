"""Random levels and textures of the classes: the class average, used to vary an image instead of to flatten it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.transforms.noise import RelativeGaussianNoiseTransform
from nnunetv2_sikd.transforms.teacher_input import end_of_augmentation

JitterLevels = Literal["moved", "redrawn", "either"]

_AVERAGE_POOLING = (torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)


class ClassJitterTransform(ImageOnlyTransform):
    r"""Give each class of an image a new level and its texture a new strength.

    The class average :math:`m` (Eq. 1) splits an image into shape with intensity, and texture:
    :math:`x = m + (x - m)`. Each class :math:`k` gets a level :math:`s_k` and a gain :math:`g_k`, drawn per channel:

    .. math:: x' = m + s_k + g_k (x - m), \quad s_k \sim N(0, \sigma^2 v), \; g_k \sim U(a, b)

    with v the variance of the image (about 1 after nnU-Net's z-scoring, other schemes have other scales).

    Borders between classes stay as soft as a moving average over ``border`` pixels of the maps of s and g makes them:
    sharper ones, which no scanner makes, would tell the network where the classes end. Pixels with the ignore label are
    varied as one more class, so that scribbles would show in the image.

    Args:
        level_sd: σ, in standard deviations of the image.
        texture: a and b; 0 flattens a class, 1 leaves its texture as it is.
        border: Width of the moving average, odd; 1 for none.
        thick_slices: Whether the slices, the first axis of three, are so thick that borders between them are sharp.
        masked: Channels that stay 0 outside of the non-zero mask (label -1), which is no part of the image there; in
            the others it is background.

    Shape:
        - image: ``(C, *spatial)``, floating point
        - segmentation: ``(1 or more, *spatial)``, integer, of which the first channel holds the labels

    Reference:
        The class average: Dong, Du, Xu, Frontiers of Computer Science 2024, Eq. 1. Random levels by class: Billot et
        al., SynthSeg, Medical Image Analysis 2023 (there of synthetic images).
    """

    def __init__(
        self,
        level_sd: float = 0.7,
        texture: tuple[float, float] = (0.5, 1.5),
        border: int = 3,
        *,
        thick_slices: bool = False,
        masked: Collection[int] = (),
    ) -> None:
        super().__init__()
        if level_sd < 0 or not 0 <= texture[0] <= texture[1] or border < 1 or border % 2 == 0:
            raise ValueError(
                f"level_sd {level_sd} must not be negative, texture {texture} a range from 0 on, border {border} odd"
            )
        self.level_sd = level_sd
        self.texture = texture
        self.border = border
        self.thick_slices = thick_slices
        self.masked = masked

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Class averages, and maps of the levels and gains that were drawn."""
        image, label = data_dict["image"], data_dict["segmentation"][:1].long()
        channels = range(len(image))
        parts = [
            (chosen, self._drawn(image[chosen], label, masked))
            for masked in (True, False)
            if (chosen := [channel for channel in channels if (channel in self.masked) == masked])
        ]
        order = np.argsort([channel for chosen, _ in parts for channel in chosen])
        return {name: torch.cat([drawn[name] for _, drawn in parts])[order] for name in parts[0][1]}

    def _drawn(self, image: torch.Tensor, label: torch.Tensor, masked: bool) -> dict[str, torch.Tensor]:
        """Parameters of channels ``(C, *spatial)`` that are all masked, or none of them."""
        inside = label >= 0
        if masked and inside.sum() > 1:
            values = image[:, inside[0]]
            label = torch.where(inside, label, label.max() + 1)
        else:
            values, label = image.flatten(1), label.clamp(min=0)
        average = class_average(image[None], label[None])[0]
        drawn = (image.shape[0], int(label.max()) + 1)
        levels = torch.randn(drawn) * self.level_sd * values.std(dim=1, keepdim=True)
        gains = torch.empty(drawn).uniform_(*self.texture)
        return self._maps(values.mean(dim=1), average, levels[:, label[0]], gains[:, label[0]])

    def _maps(
        self, mean: torch.Tensor, average: torch.Tensor, levels: torch.Tensor, gains: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """What an image of this mean ``(C,)`` is split and put together by. Shapes of the rest: ``(C, *spatial)``."""
        return {
            "average": average,
            "levels": self._softened(levels).to(average.dtype),
            "gains": self._softened(gains).to(average.dtype),
        }

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        average: torch.Tensor = params["average"]
        return average + params["levels"] + params["gains"] * (img - average)

    def _softened(self, values: torch.Tensor) -> torch.Tensor:
        """Moving average of maps ``(C, *spatial)``, over less at the edges of the image."""
        axes = values.ndim - 1
        size = [self.border] * axes
        if self.thick_slices and axes == 3:
            size[0] = 1
        pool: Any = _AVERAGE_POOLING[axes - 1]
        softened: torch.Tensor = pool(
            values[None], size, stride=1, padding=[width // 2 for width in size], count_include_pad=False
        )
        return softened[0]


class ClassContrastTransform(ClassJitterTransform):
    r"""Give each class of an image a new level whatever it had, and turn the texture around in half of the images.

    Where jitter moves the levels, here any order of the classes is as likely as any other, the inverse one
    included: with :math:`\mu` and v the mean and variance of the image and a sign of each channel's own,

    .. math:: x' = \mu + s_k \pm g_k (x - m), \quad s_k \sim N(0, \sigma^2 v), \; g_k \sim U(a, b)

    The class average m is softened like s and g, as borders in images are: what sharp ones leave of them in the texture
    would outline each class where the texture is turned around. Borders sharper or softer than that leave a little.

    Args:
        level_sd: σ, in standard deviations of the image.
        texture: a and b; 0 flattens a class, 1 leaves its texture as it is.
        border: Width of the moving average, odd; 1 for none.
        thick_slices: Whether the slices, the first axis of three, are so thick that borders between them are sharp.
        masked: Channels that stay 0 outside of the non-zero mask (label -1), which is no part of the image there.

    Shape:
        - image: ``(C, *spatial)``, floating point
        - segmentation: ``(1 or more, *spatial)``, integer, of which the first channel holds the labels

    Reference:
        Billot et al.: SynthSeg. Medical Image Analysis 2023, which draws the levels of all tissues of a label map.
        Here the texture within a class remains that of a real image, and so does all of the background's.
    """

    def __init__(self, level_sd: float = 1.0, *args: Any, **settings: Any) -> None:
        super().__init__(level_sd, *args, **settings)

    def _maps(
        self, mean: torch.Tensor, average: torch.Tensor, levels: torch.Tensor, gains: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        to_channel = (-1, *[1] * (average.ndim - 1))
        signs = torch.randint(2, (average.shape[0],)).mul(2).sub(1).reshape(to_channel)
        moved = mean.reshape(to_channel) + levels - average
        return super()._maps(mean, self._softened(average), moved, gains * signs)


class ClassVariationTransform(BasicTransform):
    """Jitter the classes of an image or, in a share of the images, draw their levels anew.

    Jittered images keep much of their own contrast, so that a network can go on to learn from it; the redrawn ones are
    to keep it from relying on that.

    Args:
        redrawn: Share of the images (0 to 1) that get :class:`ClassContrastTransform`; the others get
            :class:`ClassJitterTransform`.
        thick_slices: Whether the slices, the first axis of three, are so thick that borders between them are sharp.
        masked: Channels that stay 0 outside of the non-zero mask (label -1), which is no part of the image there.

    Shape:
        - image: ``(C, *spatial)``, floating point
        - segmentation: ``(1 or more, *spatial)``, integer, of which the first channel holds the labels
    """

    def __init__(self, redrawn: float = 0.2, *, thick_slices: bool = False, masked: Collection[int] = ()) -> None:
        super().__init__()
        if not 0 <= redrawn <= 1:
            raise ValueError(f"redrawn is a share of the images, 0 to 1, not {redrawn}")
        self.redrawn = redrawn
        self.jitter = ClassJitterTransform(thick_slices=thick_slices, masked=masked)
        self.contrast = ClassContrastTransform(thick_slices=thick_slices, masked=masked)

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Which of the two this image gets."""
        return {"chosen": self.contrast if torch.rand(1).item() < self.redrawn else self.jitter}

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Apply it."""
        result: dict[str, Any] = params["chosen"](**data_dict)
        return result


_TRANSFORMS: dict[JitterLevels, type[ClassJitterTransform] | type[ClassVariationTransform]] = {
    "moved": ClassJitterTransform,
    "redrawn": ClassContrastTransform,
    "either": ClassVariationTransform,
}


class WithOwnRandomness(BasicTransform):
    """A transform with random numbers of its own, which leave torch's as they are without it.

    nnU-Net's data loading processes all start with one state of torch's generator and seed numpy's only. What is drawn
    from torch's they draw alike, so that many batches in a row would be varied in one way: the seed comes from numpy's.

    Args:
        transform: Draws from torch's global generator alone.

    Attributes:
        seeded: Whether each batch seeds the generators, as trainers with a seed do. Then the seed comes from torch's,
            which is put back: trainers of one seed see the same patches, with and without this transform.
    """

    def __init__(self, transform: BasicTransform) -> None:
        super().__init__()
        self.transform = transform
        self.seeded = False

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Apply the transform, seeded with the next random number."""
        before = torch.get_rng_state()
        try:
            seed = torch.randint(2**62, (1,)).item() if self.seeded else np.random.randint(2**62, dtype=np.int64)
            # The generator of the CPU alone: a forked process of the data loader cannot reach a GPU's.
            torch.default_generator.manual_seed(int(seed))
            result: dict[str, Any] = self.transform(**data_dict)
            return result
        finally:
            torch.set_rng_state(before)


class KeepForTeacherTransform(BasicTransform):
    """Keep the image as it is now for the teacher, unless a stored copy comes along; later steps alter the student's.

    See :class:`~nnunetv2_sikd.transforms.teacher_input.AppendForTeacherTransform`, which delivers it.
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Copy ``image`` to ``regression_target``."""
        if data_dict.get("regression_target") is None:
            data_dict["regression_target"] = data_dict["image"].clone()
        return data_dict


def with_class_jitter(
    pipeline: ComposeTransforms,
    share: float,
    arguments: Mapping[str, Any],
    *,
    levels: JitterLevels = "moved",
    noise: bool = False,
    keep: bool = False,
) -> ComposeTransforms:
    """Insert the jitter after all of nnU-Net's augmentation.

    Args:
        pipeline: nnU-Net's training transforms; changed.
        share: Share of the images that are varied, 0 to 1.
        arguments: Those that nnU-Net built the transforms with, by name.
        levels: Whether the levels of the classes are *moved* (jitter), *redrawn* (contrast), or *either*, image by
            image (variation).
        noise: Add noise to half of the varied images (:class:`RelativeGaussianNoiseTransform`).
        keep: Keep the image as it was before for the teacher.
    """
    if share == 0:
        return pipeline
    steps: list[BasicTransform] = [KeepForTeacherTransform()] if keep else []
    # What is outside the non-zero mask keeps the value that it has in prediction, too, in channels that have it.
    masks = [step for step in pipeline.transforms if isinstance(step, MaskImageTransform)]
    masked = {channel for step in masks for channel in step.apply_to_channels}
    # nnU-Net rotates and scales slice by slice where slices are thick.
    varied: BasicTransform = _TRANSFORMS[levels](thick_slices=arguments["do_dummy_2d_data_aug"], masked=masked)
    if noise:
        varied = ComposeTransforms([varied, RandomTransform(RelativeGaussianNoiseTransform(masked=masked), 0.5)])
    steps += [WithOwnRandomness(RandomTransform(varied, share)), *masks]
    place = end_of_augmentation(pipeline)
    pipeline.transforms[place:place] = steps
    return pipeline

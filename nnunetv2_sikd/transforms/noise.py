"""Noise as strong as an image's own scale asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform


class RelativeGaussianNoiseTransform(ImageOnlyTransform):
    """Gaussian noise, one strength for all channels, relative to the standard deviation of each.

    With varied levels alone, networks become less sturdy against noise (docs/benchmarks/variation.md). The strength of
    batchgeneratorsv2's noise is absolute, and images have other scales in other schemes of normalisation.

    Args:
        max_sd: Largest standard deviation of the noise, in standard deviations of the image; each strength from 0 on is
            as likely.
        masked: Channels of which only the non-zero mask counts (label not -1), see
            :class:`~nnunetv2_sikd.transforms.class_jitter.ClassJitterTransform`.

    Shape:
        - image: ``(C, *spatial)``, floating point
        - segmentation: ``(1 or more, *spatial)``, of which the first channel holds the labels
    """

    def __init__(self, max_sd: float = 0.5, *, masked: Collection[int] = ()) -> None:
        super().__init__()
        if max_sd < 0:
            raise ValueError(f"max_sd {max_sd} must not be negative")
        self.max_sd = max_sd
        self.masked = masked

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        """Standard deviation of the noise, by channel."""
        image, inside = data_dict["image"], data_dict["segmentation"][0] >= 0
        own = inside.sum() > 1
        deviations = [
            (channel[inside] if own and number in self.masked else channel).std()
            for number, channel in enumerate(image)
        ]
        return {"deviations": self.max_sd * torch.rand(1).item() * torch.stack(deviations)}

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return img + params["deviations"].reshape(-1, *[1] * (img.ndim - 1)) * torch.randn_like(img)

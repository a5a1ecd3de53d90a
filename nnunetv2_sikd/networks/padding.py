"""Background in place of the zeros with which nnU-Net pads images that are smaller than a patch."""

from __future__ import annotations

import torch


@torch.compiler.disable  # type: ignore[untyped-decorator]
def pad_with_background(images: torch.Tensor) -> torch.Tensor:
    """Give the zero padding around class-averaged images the level of their background.

    In training, padding is background and takes part in its mean; nnU-Net's sliding window pads with 0 and
    knows no classes. To a teacher that zero is one more class around the image, and its Dice suffers
    (measured in ``docs/explanation.md``). Background is taken to be the most frequent level along the
    image's outer edge.

    Args:
        images: Class-averaged; padding is what lies outside the smallest box around all non-zero pixels.

    Shape:
        - images, result: ``(B, C, *spatial)``
    """
    return torch.stack([_pad_one(image) for image in images])


def _pad_one(image: torch.Tensor) -> torch.Tensor:
    inside = (image != 0).any(0)
    if inside.all() or not inside.any():
        return image
    extents = [(int(axis.min()), int(axis.max()) + 1) for axis in inside.nonzero().T]
    box = (slice(None), *(slice(first, last) for first, last in extents))
    edge = torch.ones_like(inside[box[1:]])
    edge[tuple(slice(1, -1) if size > 2 else slice(0, 0) for size in edge.shape)] = False
    # On the CPU: Apple's GPUs have no mode.
    level = image[box][:, edge].cpu().mode(dim=1).values.to(image.device)
    filled = level.reshape(-1, *[1] * inside.ndim).expand_as(image).clone()
    filled[box] = image[box]
    return filled

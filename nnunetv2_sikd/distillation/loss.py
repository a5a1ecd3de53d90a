"""The student's loss: L = L_seg + α · MSE(f_t, f_s) (Eqs. 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed as dist
from torch import nn


def feature_mse(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared error of two feature maps, in float32 whatever autocast does (Eq. 3).

    Args:
        student: Features that receive the gradient.
        teacher: Features of the frozen teacher.
        mask: Pixels that count; None for all. Without any such pixel the result is 0.

    Shape:
        - student, teacher: ``(B, C, *spatial)``
        - mask: boolean ``(B, 1, *spatial)``
        - result: scalar

    Raises:
        ValueError: The feature maps differ in shape.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)} differ in shape"
        )
    mean: torch.Tensor = _FeatureMSE.apply(student, teacher, mask)
    return mean


class _FeatureMSE(torch.autograd.Function):
    """Keeps nothing but the feature maps, which are there anyway.

    The plain expression would keep float32 copies of both maps, at full resolution the largest tensors of the
    training, until the backward pass: under mixed precision four times the student's own map.
    """

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        ctx.masked = mask is not None
        ctx.count = student.numel() if mask is None else (mask.sum() * student.shape[1]).clamp(min=1)
        ctx.save_for_backward(student, teacher, *(() if mask is None else (mask,)))
        sums = [difference.square().sum() for difference in _differences(student, teacher, mask)]
        return torch.stack(sums).sum() / ctx.count

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        student, teacher, *masks = ctx.saved_tensors
        scale = 2 * gradients[0] / ctx.count
        gradient = torch.empty_like(student)
        differences = _differences(student, teacher, masks[0] if ctx.masked else None)
        for image, difference in zip(gradient, differences, strict=True):
            image.copy_(difference.mul_(scale))
        return gradient, None, None


def _differences(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None) -> Iterator[torch.Tensor]:
    """Differences of one image after the other, ``(C, *spatial)``, 0 outside the mask; never all at once."""
    dtype = _precise(student)
    for number in range(len(student)):
        difference = student[number].to(dtype) - teacher[number].to(dtype)
        yield difference if mask is None else difference.mul_(mask[number])


def _precise(features: torch.Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


def share_of_ranks(count: torch.Tensor) -> torch.Tensor:
    """What makes a mean over the pixels of one rank its part of the mean over those of all ranks.

    DDP averages the ranks' gradients. They differ in their number of pixels where some are ignored, or where the
    batch cannot be split evenly; an average of their means would give the pixels of one rank more weight.

    Args:
        count: Number of pixels in this rank, a scalar.

    Returns:
        Scalar to multiply this rank's mean by; 1 where all ranks have the same number.
    """
    total = count.clone()
    dist.all_reduce(total)
    return count * dist.get_world_size() / total.clamp(min=1)


class DistillationLoss(nn.Module):
    """nnU-Net's loss plus α times the feature MSE, wherever :meth:`expect` announced teacher features.

    In validation nothing is announced, and the loss is nnU-Net's own.

    Args:
        segmentation: nnU-Net's loss.
        alpha: Weight α of the distillation.
        capture: Source of the student's features; has ``take()``.
        ddp: Several processes train together, each on its part of the batch.
    """

    def __init__(self, segmentation: nn.Module, alpha: float, capture: Any, ddp: bool = False) -> None:
        super().__init__()
        self.ddp = ddp
        self.segmentation = segmentation
        self.alpha = alpha
        self.capture = capture
        self._expected: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.last_parts: torch.Tensor | None = None

    def expect(self, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> None:
        """Announce the teacher's features (and the pixels that count) for the next training step.

        Shape:
            - teacher: ``(B, C, *spatial)``
            - mask: boolean ``(B, 1, *spatial)``
        """
        self._expected = (teacher, mask)

    def forget(self) -> None:
        """Drop all features, so that no memory is held between steps."""
        self._expected = None
        self.capture.clear()

    def forward(self, output: Any, target: Any) -> torch.Tensor:
        """The total loss; ``last_parts``, shape ``(2,)``, keeps segmentation and (unweighted) distillation loss.

        Args:
            output: Logits as nnU-Net's loss takes them (a list under deep supervision).
            target: Targets likewise.
        """
        segmentation = self.segmentation(output, target)
        if self._expected is None:
            return segmentation
        teacher, mask = self._expected
        distillation = feature_mse(self.capture.take(), teacher, mask)
        if self.ddp:
            counted = torch.ones_like(teacher[:, :1], dtype=torch.bool) if mask is None else mask
            distillation = distillation * share_of_ranks(counted.sum())
        # Kept on the device: reading them here would make the GPU wait once more per step.
        self.last_parts = torch.stack([segmentation.detach().float(), distillation.detach()])
        return segmentation + self.alpha * distillation

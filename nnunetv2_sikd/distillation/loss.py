"""The student's loss: L = L_seg + α · MSE(f_t, f_s) (Eqs. 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import distributed as dist
from torch import nn

FeatureLoss = Literal["mse", "normalised", "cosine", "linear"]

# Share of the mean variance of the student's features, and what keeps a division from one by 0.
_RIDGE, _SMALL = 1e-3, 1e-6


def feature_mse(student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared error of two feature maps, in float32 whatever autocast does (Eq. 3).

    Args:
        student: Features that receive the gradient.
        teacher: Features of the frozen teacher.
        weights: Of the pixels in the mean; boolean for those that count at all, None for all alike. Where no pixel
            counts the result is 0.

    Shape:
        - student, teacher: ``(B, C, *spatial)``
        - weights: ``(B, 1, *spatial)``, boolean or not negative
        - result: scalar

    Raises:
        ValueError: The feature maps differ in shape.

    Reference:
        Dong, Du, Xu: Shape-intensity knowledge distillation for robust medical image segmentation, Frontiers of
        Computer Science 2024, Eq. 3.
    """
    _check_shapes(student, teacher)
    mean: torch.Tensor = _FeatureMSE.apply(student, teacher, weights)
    return mean


def feature_variance(teacher: torch.Tensor, weights: torch.Tensor | None = None, *, ddp: bool = False) -> torch.Tensor:
    """Variance of a teacher's features around the mean of each feature, in float32 or better.

    The mean squared error divided by it is the share of the teacher's features that the student has not learnt,
    whatever their scale: 1 for a student that knows their means alone.

    Args:
        teacher: Features.
        weights: Of the pixels, see :func:`feature_mse`.
        ddp: Over the pixels of all processes.

    Shape:
        - teacher: ``(B, C, *spatial)``
        - weights: ``(B, 1, *spatial)``
        - result: scalar, above 0
    """
    values = teacher.to(torch.promote_types(teacher.dtype, torch.float32))
    weighting = torch.ones_like(values[:, :1]) if weights is None else weights.to(values.dtype)
    axes = [0, *range(2, values.ndim)]
    sums = torch.stack(
        [
            (weighting * values).sum(axes),
            (weighting * values.square()).sum(axes),
            weighting.sum().expand(values.shape[1]),
        ]
    )
    if ddp:
        dist.all_reduce(sums)
    first, second, total = sums
    total = total.clamp(min=1e-6)
    return (second / total - (first / total).square()).mean().clamp(min=1e-6)


def cosine_distance(student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the pixels of 1 - cos between the feature vectors, in float32 whatever autocast does.

    Args:
        student: Features that receive the gradient.
        teacher: Features of the frozen teacher.
        weights: Of the pixels, see :func:`feature_mse`.

    Shape:
        - student, teacher: ``(B, C, *spatial)``
        - weights: ``(B, 1, *spatial)``
        - result: scalar, 0 to 2
    """
    _check_shapes(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        dtype = _precise(student)
        distance = 1 - nn.functional.cosine_similarity(student.to(dtype), teacher.to(dtype), dim=1)[:, None]
        if weights is None:
            return distance.mean()
        return (distance * weights).sum() / weights.sum().clamp(min=1)


def unexplained_variance(
    student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None = None, *, ddp: bool = False
) -> torch.Tensor:
    """Share of the variance of the teacher's features that no linear function of the student's explains.

    What is left after the least-squares fit of the teacher's features on the student's (and a constant) over all
    pixels, found anew in each step and in closed form, so that nothing more is trained or saved. The student has to
    hold what the teacher knows, and is free in how, and in what else it holds: features that the teacher leaves
    unused need not die in the student, as they must under :func:`feature_mse`. It does not depend on the scale of
    either.

    Args:
        student: Features that receive the gradient.
        teacher: Features of the frozen teacher.
        weights: Of the pixels, see :func:`feature_mse`.
        ddp: One fit over the pixels of all processes.

    Shape:
        - student, teacher: ``(B, C, *spatial)``
        - weights: ``(B, 1, *spatial)``
        - result: scalar, 0 to 1; 0 where no pixel counts

    Raises:
        ValueError: The feature maps differ in shape.

    Reference:
        Comparing features through a regressor: Romero et al., FitNets: hints for thin deep nets, ICLR 2015 (there a
        trained convolution).
    """
    _check_shapes(student, teacher)
    moments: torch.Tensor = _Moments.apply(student, teacher, weights)
    if ddp:
        moments = AllGatherGrad.apply(moments).sum(0)
    # Under autocast the products would be made in half precision.
    with torch.autocast(student.device.type, enabled=False):
        moments = moments / moments[0, 0].clamp(min=_SMALL)
        means = moments[0, 1:]
        covariance = moments[1:, 1:] - means[:, None] * means[None]
        features = student.shape[1]
        own, cross, theirs = covariance[:features, :features], covariance[:features, features:], covariance.diagonal()
        total = theirs[features:].sum().clamp(min=_SMALL)
        # Keeps directions of the student that hardly vary out of the fit, where they could explain by their noise.
        ridge = _RIDGE * own.diagonal().mean() + _SMALL
        # Not torch.linalg.solve, whose check of its result would make a GPU wait.
        factor, _ = torch.linalg.cholesky_ex(own + ridge * torch.eye(features, device=own.device, dtype=own.dtype))
        explained = (cross * torch.cholesky_solve(cross, factor)).sum()
        return (theirs[features:].sum() - explained).clamp(min=0) / total


def class_weights(
    label: torch.Tensor, num_labels: int, ignore_label: int | None = None, *, ddp: bool = False
) -> torch.Tensor:
    """Weights of pixels with which each class that is present counts as much as any other.

    Unweighted, the background, which is most of nearly every patch, decides what the student learns.

    Args:
        label: Class of each pixel, not negative.
        num_labels: One more than the largest label value.
        ignore_label: Its pixels do not count.
        ddp: Count the pixels of all processes.

    Shape:
        - label: ``(B, 1, *spatial)``, integer
        - result: as label, float32, of mean 1 over the pixels that count
    """
    index = label.reshape(-1).long()
    counts = torch.zeros(num_labels, dtype=torch.int64, device=label.device)
    counts.scatter_add_(0, index, torch.ones_like(index))
    if ignore_label is not None and 0 <= ignore_label < num_labels:
        counts[ignore_label] = 0
    if ddp:
        dist.all_reduce(counts)
    present = counts > 0
    weights = present * counts.sum() / (present.sum().clamp(min=1) * counts.clamp(min=1))
    return weights.float()[index].reshape(label.shape)


class _FeatureMSE(torch.autograd.Function):
    """Keeps nothing but the feature maps, which are there anyway.

    The plain expression would keep float32 copies of both maps, at full resolution the largest tensors of the
    training, until the backward pass: under mixed precision four times the student's own map.
    """

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        ctx.weighted = weights is not None
        ctx.count = student.numel() if weights is None else (weights.sum() * student.shape[1]).clamp(min=1)
        ctx.save_for_backward(student, teacher, *(() if weights is None else (weights,)))
        sums = [(difference * weighted).sum() for difference, weighted in _differences(student, teacher, weights)]
        return torch.stack(sums).sum() / ctx.count

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        student, teacher, *weights = ctx.saved_tensors
        scale = 2 * gradients[0] / ctx.count
        gradient = torch.empty_like(student)
        differences = _differences(student, teacher, weights[0] if ctx.weighted else None)
        for image, (_, weighted) in zip(gradient, differences, strict=True):
            image.copy_(weighted * scale)
        return gradient, None, None


class _Moments(torch.autograd.Function):
    """Sums over the pixels of w·z·zᵀ, z = (1, student's features, teacher's), in float32 or better.

    Keeps nothing but the feature maps, as :class:`_FeatureMSE` does.

    Shape:
        - student, teacher: ``(B, C, *spatial)``
        - weights: ``(B, 1, *spatial)`` or None
        - result: ``(1 + 2 C, 1 + 2 C)``, symmetric
    """

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        ctx.weighted = weights is not None
        ctx.save_for_backward(student, teacher, *(() if weights is None else (weights,)))
        with torch.autocast(student.device.type, enabled=False):
            sums = [weighted @ joint.T for joint, weighted in _joint(student, teacher, weights)]
            return torch.stack(sums).sum(0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        student, teacher, *weights = ctx.saved_tensors
        own = slice(1, 1 + student.shape[1])
        towards = (gradients[0] + gradients[0].T)[own]
        gradient = torch.empty_like(student)
        with torch.autocast(student.device.type, enabled=False):
            pairs = _joint(student, teacher, weights[0] if ctx.weighted else None)
            for image, (_, weighted) in zip(gradient, pairs, strict=True):
                image.copy_((towards @ weighted).reshape(image.shape))
        return gradient, None, None


def _joint(
    student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(1, student's features, teacher's) ``(1 + 2 C, pixels)`` of one image after the other, and times the weights."""
    dtype = _precise(student)
    for number in range(len(student)):
        maps = [each[number].to(dtype).flatten(1) for each in (student, teacher)]
        joint = torch.cat([torch.ones_like(maps[0][:1]), *maps])
        yield joint, joint if weights is None else joint * weights[number].to(dtype).flatten(1)


def _check_shapes(student: torch.Tensor, teacher: torch.Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"student features {tuple(student.shape)} and teacher features {tuple(teacher.shape)} differ in shape"
        )


def _differences(
    student: torch.Tensor, teacher: torch.Tensor, weights: torch.Tensor | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Differences ``(C, *spatial)`` of one image after the other, and the same times the weights; never all at once."""
    dtype = _precise(student)
    for number in range(len(student)):
        difference = student[number].to(dtype) - teacher[number].to(dtype)
        yield difference, difference if weights is None else difference * weights[number]


def _precise(features: torch.Tensor) -> torch.dtype:
    return torch.promote_types(features.dtype, torch.float32)


def share_of_ranks(weight: torch.Tensor) -> torch.Tensor:
    """What makes a mean over the pixels of one rank its part of the mean over those of all ranks.

    DDP averages the ranks' gradients. They differ in their pixels' weight where some are ignored, or where the
    batch cannot be split evenly; an average of their means would give the pixels of one rank more weight.

    Args:
        weight: Of all pixels of this rank together (their number where they count alike), a scalar.

    Returns:
        Scalar to multiply this rank's mean by; 1 where all ranks have the same.
    """
    total = weight.clone()
    dist.all_reduce(total)
    return weight * dist.get_world_size() / total.clamp(min=1)


class DistillationLoss(nn.Module):
    """nnU-Net's loss plus α times the feature MSE, wherever :meth:`expect` announced teacher features.

    In validation nothing is announced, and the loss is nnU-Net's own.

    Args:
        segmentation: nnU-Net's loss.
        alpha: Weight α of the distillation.
        capture: Source of the student's features; has ``take()``.
        kind: ``mse`` (Eq. 3), ``normalised`` (divided by the variance of the teacher's features), ``cosine`` or
            ``linear`` (:func:`unexplained_variance`).
        ddp: Several processes train together, each on its part of the batch.
    """

    def __init__(
        self, segmentation: nn.Module, alpha: float, capture: Any, ddp: bool = False, kind: FeatureLoss = "mse"
    ) -> None:
        super().__init__()
        self.kind = kind
        self.ddp = ddp
        self.segmentation = segmentation
        self.alpha = alpha
        self.capture = capture
        self._expected: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.last_parts: torch.Tensor | None = None

    def expect(self, teacher: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Announce the teacher's features (and the weights of the pixels), right before the student's forward pass.

        Shape:
            - teacher: ``(B, C, *spatial)``
            - weights: ``(B, 1, *spatial)``, see :func:`feature_mse`
        """
        # Not of this step: nnU-Net draws the architecture where it can, by running the network once.
        self.capture.clear()
        self._expected = (teacher, weights)

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
        teacher, weights = self._expected
        student = self.capture.take()
        if self.kind == "linear":
            distillation = unexplained_variance(student, teacher, weights, ddp=self.ddp)
        else:
            distillation = (cosine_distance if self.kind == "cosine" else feature_mse)(student, teacher, weights)
        if self.kind == "normalised":
            distillation = distillation / feature_variance(teacher, weights, ddp=self.ddp)
        if self.ddp and self.kind != "linear":  # whose fit is of all ranks already
            counted = torch.ones_like(teacher[:, :1], dtype=torch.bool) if weights is None else weights
            distillation = distillation * share_of_ranks(counted.sum())
        # Kept on the device: reading them here would make the GPU wait once more per step.
        self.last_parts = torch.stack([segmentation.detach().float(), distillation.detach()])
        return segmentation + self.alpha * distillation

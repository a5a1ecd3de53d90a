"""Class averaging: every pixel takes the mean intensity of its class (Eq. 1 of the SIKD paper)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

ArrayT = TypeVar("ArrayT", torch.Tensor, np.ndarray)

# Label values above this are first renumbered, so that the table of means stays small.
_LARGEST_DIRECT_LABEL = 4096


def class_average(
    image: ArrayT,
    label: ArrayT,
    *,
    ignore_label: int | None = None,
    num_labels: int | None = None,
) -> ArrayT:
    r"""Replace every intensity by the mean of its class, per image of the batch and per channel.

    .. math:: f_m(x) = \frac{1}{|X_k|} \sum_{y \in X_k} f(y) \quad \forall x \in X_k

    with :math:`X_k` the pixels of class :math:`k`. Classes are the label values, background included.
    Negative labels (nnU-Net's -1, outside the non-zero mask) count as background, unless that value is the
    ignore label. The ignore label is no class: its pixels are averaged apart and change no class's mean.

    Sums run in float64 (float32 on MPS, which has no float64), whatever autocast does; a class whose pixels
    are equal therefore keeps its value exactly, and averaging twice changes nothing.

    Args:
        image: Floating point, any intensity unit.
        label: Integer class of each pixel. Torch with torch, numpy with numpy.
        ignore_label: Value of the pixels that belong to no class.
        num_labels: One more than the largest label value (the ignore label included). Spares a GPU the wait
            for reading the largest label back; values beyond it must not occur.

    Returns:
        The averaged image, of the shape, type and device of ``image``.

    Shape:
        - image: ``(B, C, *spatial)``, 1 to 3 spatial axes
        - label: ``(B, 1, *spatial)`` or ``(B, *spatial)``
        - result: as ``image``

    Raises:
        TypeError: ``image`` is not floating point or ``label`` not integer.
        ValueError: The shapes do not fit each other.

    Note:
        For a volume averaged slice by slice, pass the slices as the batch.

    Reference:
        Dong, Du, Xu: Shape-intensity knowledge distillation for robust medical image segmentation,
        Frontiers of Computer Science 2024, Eq. 1.

    Example:
        >>> image = torch.tensor([[[1.0, 3.0, 10.0]]])
        >>> class_average(image, torch.tensor([[0, 0, 1]]))
        tensor([[[ 2.,  2., 10.]]])
    """
    if isinstance(image, np.ndarray):
        averaged = class_average(
            torch.from_numpy(np.ascontiguousarray(image)),
            torch.from_numpy(_torch_integer(np.asarray(label))),
            ignore_label=ignore_label,
            num_labels=num_labels,
        )
        return averaged.numpy()

    if not image.is_floating_point():
        raise TypeError(f"image must be floating point, got {image.dtype}")
    if label.is_floating_point() or label.is_complex():
        raise TypeError(f"label must be integer, got {label.dtype}")
    batch, channels, *spatial = image.shape
    if tuple(label.shape) not in ((batch, 1, *spatial), (batch, *spatial)):
        raise ValueError(
            f"label must have shape {(batch, 1, *spatial)} or {(batch, *spatial)} "
            f"for an image of shape {tuple(image.shape)}, got {tuple(label.shape)}"
        )
    if image.numel() == 0:
        return image.clone()

    classes, num_classes = _class_indices(label.reshape(batch, 1, -1).long(), ignore_label, num_labels)
    accumulator = torch.float32 if image.device.type == "mps" else torch.float64
    values = image.reshape(batch, channels, -1).to(accumulator)
    sums = values.new_zeros(batch, channels, num_classes)
    least = torch.zeros_like(sums)
    if image.dtype == accumulator:
        # Sums in the image's own type round. What exceeds the least value of a class sums to exactly 0 where
        # all its values are equal.
        least.scatter_reduce_(2, classes.expand_as(values), values, "amin", include_self=False)
        values = values - least.gather(2, classes.expand_as(values))
    sums.scatter_add_(2, classes.expand_as(values), values)
    sizes = values.new_zeros(batch, 1, num_classes)
    sizes.scatter_add_(2, classes, values.new_ones(1).expand_as(classes))
    # An absent class has sum 0 and is never looked up: any divisor will do.
    means = (least + sums / sizes.clamp(min=1)).to(image.dtype)
    return means.gather(2, classes.expand_as(values)).reshape(image.shape)


def _class_indices(label: torch.Tensor, ignore_label: int | None, num_labels: int | None) -> tuple[torch.Tensor, int]:
    """Turn labels into consecutive indices, background 0 and the ignore label apart."""
    ignored = None if ignore_label is None else label == ignore_label
    label = label.clamp(min=0)
    if num_labels is None:
        num_labels = int(label.max()) + 1
    if num_labels > _LARGEST_DIRECT_LABEL:
        present, label = label.unique(return_inverse=True)
        num_labels = len(present)
    if ignored is not None:
        label = label.masked_fill(ignored, num_labels)
        num_labels += 1
    return label, num_labels


def _torch_integer(label: np.ndarray) -> np.ndarray:
    """Widen the unsigned types that torch cannot index with; leave floats for the type check."""
    if label.dtype.kind == "u" and label.dtype.itemsize > 1:
        return label.astype(np.int64)
    return np.ascontiguousarray(label)

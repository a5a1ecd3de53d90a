"""Class averaging: every pixel takes the mean intensity of its class (Eq. 1 of the SIKD paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# torch is imported where tensors come in: making copies of a whole data set takes less time than its import.
ArrayT = TypeVar("ArrayT", "torch.Tensor", "np.ndarray")

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
    are equal therefore keeps its value exactly, and averaging twice changes nothing. The result carries no gradient.

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
        IndexError: A label value is beyond ``num_labels`` (on a GPU torch's own error).

    Note:
        For a volume averaged slice by slice, pass the slices as the batch.

    Reference:
        Dong, Du, Xu: Shape-intensity knowledge distillation for robust medical image segmentation,
        Frontiers of Computer Science 2024, Eq. 1.

    Example:
        >>> import torch
        >>> image = torch.tensor([[[1.0, 3.0, 10.0]]])
        >>> class_average(image, torch.tensor([[0, 0, 1]]))
        tensor([[[ 2.,  2., 10.]]])
    """
    if isinstance(image, np.ndarray):
        label = np.asarray(label)
        _check(image, label, image.dtype.kind == "f", label.dtype.kind in "iub")
        return _average_arrays(image, label, ignore_label, num_labels)

    _check(image, label, image.is_floating_point(), not (label.is_floating_point() or label.is_complex()))
    if image.device.type == label.device.type == "cpu":
        import torch

        values = image.detach()  # numpy has no bfloat16, whose values float32 holds exactly
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        averaged = _average_arrays(array, label.detach().numpy(), ignore_label, num_labels)
        return torch.from_numpy(averaged).to(image.dtype)
    return _average_tensors(image.detach(), label, ignore_label, num_labels)


def _check(image: Any, label: Any, image_is_float: bool, label_is_integer: bool) -> None:
    if not image_is_float:
        raise TypeError(f"image must be floating point, got {image.dtype}")
    if not label_is_integer:
        raise TypeError(f"label must be integer, got {label.dtype}")
    batch, _, *spatial = image.shape
    if tuple(label.shape) not in ((batch, 1, *spatial), (batch, *spatial)):
        raise ValueError(
            f"label must have shape {(batch, 1, *spatial)} or {(batch, *spatial)} "
            f"for an image of shape {tuple(image.shape)}, got {tuple(label.shape)}"
        )


def _average_arrays(
    image: NDArray[Any], label: NDArray[Any], ignore_label: int | None, num_labels: int | None
) -> NDArray[Any]:
    """Average on the CPU, run by run: label maps consist of long runs of pixels of one class.

    Adding pixel by pixel, each sum waits for the one before it, which takes nine times as long.
    """
    averaged = np.empty(image.shape, image.dtype)
    if image.size == 0:
        return averaged
    for values, classes, result in zip(image, label, averaged, strict=True):
        flat = classes.reshape(-1)
        starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
        lengths = np.diff(starts, append=flat.size)
        index, num_classes = _classes_of_runs(flat[starts], ignore_label, num_labels)
        sizes = np.bincount(index, lengths, num_classes).clip(min=1)  # an absent class is never looked up
        for channel, out in zip(values, result, strict=True):
            means = _means(channel.reshape(-1), starts, lengths, index, sizes)
            out.reshape(-1)[:] = np.repeat(means.astype(image.dtype)[index], lengths)
    return averaged


def _means(
    values: NDArray[Any], starts: NDArray[Any], lengths: NDArray[Any], index: NDArray[Any], sizes: NDArray[Any]
) -> NDArray[np.float64]:
    """Mean of each class, from its runs."""
    least: Any = 0.0
    if values.dtype.itemsize >= np.dtype(np.float64).itemsize:
        # Sums in the image's own type round. What exceeds the least value of a class sums to exactly 0 where
        # all its values are equal.
        least = np.full(sizes.size, np.inf)
        np.minimum.at(least, index, np.minimum.reduceat(values, starts))
        values = values - np.repeat(least[index], lengths)
    sums = np.bincount(index, np.add.reduceat(values, starts, dtype=np.float64), sizes.size)
    return np.asarray(least + sums / sizes)


def _classes_of_runs(
    label: NDArray[Any], ignore_label: int | None, num_labels: int | None
) -> tuple[NDArray[np.intp], int]:
    """As :func:`_class_indices`, for the label value of each run."""
    ignored = None if ignore_label is None else label == ignore_label
    index = np.maximum(label, 0).astype(np.intp)
    if ignored is not None:
        index[ignored] = 0
    num_classes = int(index.max()) + 1
    if num_labels is not None and num_classes > num_labels:
        raise IndexError(f"label has value {num_classes - 1}, beyond num_labels={num_labels}")
    if num_classes > _LARGEST_DIRECT_LABEL:
        present, index = np.unique(index, return_inverse=True)
        num_classes = len(present)
    if ignored is not None:
        index[ignored] = num_classes
        num_classes += 1
    return index, num_classes


def _average_tensors(
    image: torch.Tensor, label: torch.Tensor, ignore_label: int | None, num_labels: int | None
) -> torch.Tensor:
    """Average on a GPU."""
    import torch

    if image.numel() == 0:
        return image.clone()
    batch, channels, *_ = image.shape
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

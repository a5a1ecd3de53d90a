"""batchgeneratorsv2 transforms that make or carry the teacher's input."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError


class ClassAverageTransform(BasicTransform):
    """Flatten the augmented image with the augmented label.

    Whatever interpolation, noise or blur came before, every class leaves with one value per channel.

    Args:
        ignore_label: Averaged apart from the classes.
    """

    def __init__(self, ignore_label: int | None = None) -> None:
        super().__init__()
        self.ignore_label = ignore_label

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Replace ``image`` ``(C, *spatial)`` using the first channel of ``segmentation``."""
        label = data_dict["segmentation"][:1]
        data_dict["image"] = class_average(data_dict["image"][None], label[None], ignore_label=self.ignore_label)[0]
        return data_dict


class LabelMapTransform(BasicTransform):
    """Replace every image channel by the label map, scaled to [0, 1] (control of the paper's Table 6).

    Args:
        largest_label: Label value that becomes 1.
    """

    def __init__(self, largest_label: int) -> None:
        super().__init__()
        self.largest_label = largest_label

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Replace ``image`` ``(C, *spatial)`` using the first channel of ``segmentation``."""
        image = data_dict["image"]
        scaled = label_map_image(data_dict["segmentation"][:1], self.largest_label)
        data_dict["image"] = scaled.to(image.dtype).expand_as(image).clone()
        return data_dict


def label_map_image(label: torch.Tensor, largest_label: int) -> torch.Tensor:
    """Label values scaled to [0, 1]; whatever is no class (negative, ignore label) at background's 0.

    Shape:
        - label: any, integer
        - result: as label, float32
    """
    is_class = (label >= 0) & (label <= largest_label)
    return (label * is_class).float() / max(largest_label, 1)


class TakeOutCopyTransform(BasicTransform):
    """Move the copy, which the data loader delivers as further image channels, to ``regression_target``.

    There nnU-Net's spatial and mirror transforms act on it, and its intensity transforms do not.
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Split ``image`` ``(2C, *spatial)`` into image and copy of C channels each."""
        image, copy = data_dict["image"].chunk(2)
        data_dict["image"], data_dict["regression_target"] = image.contiguous(), copy.contiguous()
        return data_dict


class AppendForTeacherTransform(BasicTransform):
    """Append the augmented copy (if any) and, if asked, the label map to the image channels.

    The label map is needed where the loss's target no longer holds it: region-based training.

    Args:
        with_label: Append the label map as last channel.
    """

    def __init__(self, with_label: bool) -> None:
        super().__init__()
        self.with_label = with_label

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Make ``image`` ``(C [+ C] [+ 1], *spatial)``."""
        parts = [data_dict["image"]]
        copy = data_dict.pop("regression_target", None)
        if copy is not None:
            parts.append(copy)
        if self.with_label:
            parts.append(data_dict["segmentation"][:1].to(parts[0].dtype))
        data_dict["image"] = torch.cat(parts)
        return data_dict


def insert_at_label_map(pipeline: ComposeTransforms, transform: BasicTransform) -> ComposeTransforms:
    """Insert ``transform`` where all augmentation is done and the segmentation is still a plain label map.

    That is right after nnU-Net turns -1 into background; regions, cascades and deep supervision follow.

    Raises:
        SIKDError: The pipeline has no such place.
    """
    pipeline.transforms.insert(end_of_augmentation(pipeline) + 1, transform)
    return pipeline


def end_of_augmentation(pipeline: ComposeTransforms) -> int:
    """Index of the step in which nnU-Net turns -1 into background, after all augmentation.

    Raises:
        SIKDError: The pipeline has no such step, or several.
    """
    places = [
        i
        for i, step in enumerate(pipeline.transforms)
        if isinstance(step, RemoveLabelTansform) and step.label_value == -1
    ]
    if len(places) != 1:
        raise SIKDError(
            f"expected one place in the augmentation where -1 becomes background, found {len(places)}: "
            "this trainer's transforms do not fit SIKD, train without SIKD or with nnU-Net's default augmentation"
        )
    return places[0]

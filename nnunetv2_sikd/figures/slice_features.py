"""One slice as the networks of a fold see it: cut into a patch, averaged, turned into features, compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from numpy.typing import NDArray

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.figures.cases import choose_slice, class_names, read_case
from nnunetv2_sikd.figures.networks import FoldNetworks
from nnunetv2_sikd.figures.similarity import linear_cka, mean_squared_error, rotate_onto
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.transforms.teacher_input import label_map_image


@dataclass(frozen=True)
class SliceFeatures:
    """What a figure shows of one slice; padding is cut away again.

    Attributes:
        case: Case identifier.
        index: Slice of the preprocessed case.
        image: ``(C, Y, X)``.
        teacher_input: ``(C, Y, X)``, the class average (label map or image for the controls).
        label: ``(Y, X)``, background also where nnU-Net marks the outside with -1.
        counted: ``(Y, X)``, False at the ignore label, which takes no part in distillation.
        features: ``(features, Y, X)`` by network: teacher, student and perhaps stock.
    """

    case: str
    index: int
    image: NDArray[np.float32]
    teacher_input: NDArray[np.float32]
    label: NDArray[np.int16]
    counted: NDArray[np.bool_]
    features: dict[str, NDArray[np.float64]]

    def matrix(self, network: str) -> NDArray[np.float64]:
        """Features at the counted pixels.

        Shape:
            - result: ``(pixels, features)``
        """
        return self.features[network][:, self.counted].T


def slice_features(
    planned: PlannedConfiguration, networks: FoldNetworks, case: str, index: int | None = None
) -> SliceFeatures:
    """Features of one slice, from a patch of the plans' size around its foreground, as in training.

    The features of a 3D configuration are those of the whole patch, cut at the slice.

    Args:
        planned: Data set and configuration.
        networks: Trained networks.
        case: Case identifier.
        index: Slice; None for the one :func:`choose_slice` takes.

    Raises:
        SIKDError: No such case or slice.
    """
    image, label = read_case(planned, case)
    labels = planned.label_manager
    if index is None:
        index = choose_slice(label, labels.ignore_label)
    if not 0 <= index < len(label):
        raise SIKDError(f"--slice {index}: {case} has slices 0 to {len(label) - 1} as preprocessed; choose one of them")
    patch_size = [int(size) for size in planned.configuration.patch_size]
    flat = len(patch_size) == 2
    if flat:
        image, label, inner = image[:, index : index + 1], label[index : index + 1], 0
    else:
        inner = index
    box = _patch_box(label, inner, [1, *patch_size] if flat else patch_size, labels.ignore_label)

    cut_image = torch.from_numpy(crop_and_pad_nd(image, box, 0))[None]
    cut_label = torch.from_numpy(crop_and_pad_nd(label, box, -1))[None, None]
    source = cut_image
    if networks.settings.teacher_view == "copy":
        whole = class_average(
            torch.from_numpy(image)[None], torch.from_numpy(label)[None], ignore_label=labels.ignore_label
        )
        source = crop_and_pad_nd(whole, box, 0)
    given = _teacher_input(networks, cut_image, source, cut_label, planned)
    squeeze = 2 if flat else ()
    maps = networks.features(cut_image.squeeze(squeeze), given.squeeze(squeeze))

    # back to the shown slice without the padding around it
    z = inner - box[0][0]
    rows, columns = (
        slice(max(0, -first), min(last, size) - first)
        for (first, last), size in zip(box[1:], label.shape[1:], strict=True)
    )
    shown = (z, rows, columns)
    shown_label = cut_label[0, 0][shown].numpy()
    counted = np.ones(shown_label.shape, bool) if labels.ignore_label is None else shown_label != labels.ignore_label
    if counted.sum() < 2:
        raise SIKDError(f"{case}: slice {index} has no labelled pixels; choose another with --slice")
    return SliceFeatures(
        case,
        index,
        cut_image[(0, slice(None), *shown)].numpy(),
        given[(0, slice(None), *shown)].numpy(),
        np.maximum(shown_label, 0),
        counted,
        {
            name: (each[(slice(None), rows, columns)] if flat else each[(slice(None), *shown)]).double().numpy()
            for name, each in maps.items()
        },
    )


def compare(view: SliceFeatures) -> list[dict[str, Any]]:
    """How near student and stock come to the teacher, one row a network and region (slice, foreground)."""
    rows = []
    regions = {"slice": np.ones(int(view.counted.sum()), bool), "foreground": view.label[view.counted] > 0}
    teacher = view.matrix("teacher")
    for network in (name for name in view.features if name != "teacher"):
        features = view.matrix(network)
        rotated = rotate_onto(features, teacher)
        for region, chosen in regions.items():
            if chosen.sum() >= 2:
                rows.append(
                    {
                        "case": view.case,
                        "slice": view.index,
                        "network": network,
                        "region": region,
                        "pixels": int(chosen.sum()),
                        "mse": mean_squared_error(features[chosen], teacher[chosen]),
                        "mse_rotated": mean_squared_error(rotated[chosen], teacher[chosen]),
                        "cka": linear_cka(features[chosen], teacher[chosen]),
                        "teacher_variance": float(teacher[chosen].var(0).mean()),
                    }
                )
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Mean over the cases of what :func:`compare` gives, one line a network and region."""
    lines = []
    for network, region in dict.fromkeys((row["network"], row["region"]) for row in rows):
        chosen = [row for row in rows if (row["network"], row["region"]) == (network, region)]
        mse, rotated, cka, variance = (
            np.nanmean([row[key] for row in chosen]) for key in ("mse", "mse_rotated", "cka", "teacher_variance")
        )
        lines.append(
            f"{network} to teacher, {region}: MSE {mse:.3f}, rotated {rotated:.3f}, linear CKA {cka:.3f}, teacher's "
            f"variance {variance:.3f} (mean of {len(chosen)} cases, a slice each)"
        )
    return "\n".join(lines)


def _teacher_input(
    networks: FoldNetworks,
    image: torch.Tensor,
    source: torch.Tensor,
    label: torch.Tensor,
    planned: PlannedConfiguration,
) -> torch.Tensor:
    """What the teacher sees while it teaches, without augmentation."""
    if networks.settings.teacher_input == "image":
        return image
    if networks.settings.teacher_input == "label_map":
        return label_map_image(label, max(class_names(planned))).expand_as(image)
    return class_average(source, label, ignore_label=planned.label_manager.ignore_label)


def _patch_box(
    label: NDArray[np.int16], index: int, patch_size: list[int], ignore_label: int | None
) -> list[list[int]]:
    """Bounds ``[first, last)`` of a patch centred on the slice's foreground, and on the slice itself in 3D.

    Inside the case where the patch fits in, around it where it does not, as nnU-Net's loader places patches.
    """
    foreground = np.argwhere((label[index] > 0) & (label[index] != ignore_label))
    middle = (foreground.min(0) + foreground.max(0) + 1) // 2 if len(foreground) else np.array(label.shape[1:]) // 2
    box = []
    for centre, size, whole in zip((index, *middle.tolist()), patch_size, label.shape, strict=True):
        first = -((size - whole) // 2) if whole < size else min(max(centre - size // 2, 0), whole - size)
        box.append([first, first + size])
    return box

"""Label files, read by nnU-Net's readers and checked against each other."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable

Unit = Literal["mm", "px"]

_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3  # relative: half a voxel over 500
_ORIGIN_TOLERANCE = 1e-2  # of the smallest spacing


@dataclass(frozen=True)
class Segmentation:
    """A label file.

    Attributes:
        values: Shape ``(Z, Y, X)``, with one slice for a 2D image.
        spacing: Of the axes of ``values``, in ``unit``. A 2D image has no thickness and gets 1.
        unit: ``px`` where the format has no spacing.
        geometry: Spacing, origin, direction or affine, as far as the format has them.
    """

    values: NDArray[np.int32]
    spacing: tuple[float, float, float]
    unit: Unit
    geometry: Mapping[str, NDArray[np.float64]]


def read_segmentation(file: Path, reader: Any, labels: LabelTable) -> Segmentation:
    """Read a label file.

    Args:
        file: What to read.
        reader: One of nnU-Net's.
        labels: The labels that may occur in the file.

    Raises:
        SIKDError: It cannot be read, is no label image, or has values that are not declared.
    """
    try:
        if file.suffix == ".gz":
            _read_through(file)
        # Readers warn about each TIFF without spacing, between the steps of the progress bar.
        with contextlib.redirect_stdout(io.StringIO()):
            array, properties = reader.read_seg(str(file))
    except Exception as error:  # each reader's library has its own
        told = " ".join(str(error).split())[-200:]
        raise SIKDError(f"{file}: cannot be read, is it complete? ({type(error).__name__}: {told})") from error
    if array.shape[0] != 1:
        raise SIKDError(f"{file}: has {array.shape[0]} channels; a label file has one")
    with np.errstate(invalid="ignore"):
        values = array[0].astype(np.int32)
    undeclared = ~np.isin(values, list(labels.values)) | (values != array[0])
    if undeclared.any():
        found = ", ".join(f"{value:g}" for value in np.unique(array[0][undeclared])[:5])
        raise SIKDError(
            f"{file}: has the value {found}, which {labels.source} does not declare: is it of another data set?"
        )
    geometry = _geometry(properties)
    z, y, x = (float(value) for value in properties["spacing"])
    # nnU-Net's readers invent a spacing of about 999 along the axis that 2D images lack.
    if len(geometry["spacing"]) == 2 or type(reader).__name__ == "NaturalImage2DIO":
        z = 1.0
    return Segmentation(values, (z, y, x), _unit(file, reader), geometry)


def check_same_grid(reference: Segmentation, prediction: Segmentation, case: str) -> None:
    """Check that two label files cover the same voxels.

    Raises:
        SIKDError: Shape, spacing, origin or direction differ by more than rounding.
    """
    pairs = [("shape", reference.values.shape, prediction.values.shape)]
    for name, value in reference.geometry.items():
        other = prediction.geometry.get(name, np.array([]))
        if value.shape != other.shape or not _same(name, value, other, min(reference.spacing)):
            pairs.append((name, _rounded(value), _rounded(other)))
    different = [f"{name} {other} where the reference has {value}" for name, value, other in pairs if value != other]
    if different:
        raise SIKDError(f"{case}: the prediction has {' and '.join(different)}")


def _read_through(file: Path) -> None:
    """Raise what gzip raises for an incomplete file; ITK reads what there is and fills up with something."""
    with gzip.open(file) as stream:
        while stream.read(1 << 20):
            pass


def _same(name: str, value: NDArray[np.float64], other: NDArray[np.float64], smallest_spacing: float) -> bool:
    relative, absolute = {
        "spacing": (_SPACING_TOLERANCE, 0.0),
        "direction": (0.0, _DIRECTION_TOLERANCE),
    }.get(name, (1e-6, _ORIGIN_TOLERANCE * smallest_spacing))
    return bool(np.allclose(value, other, rtol=relative, atol=absolute))


def _rounded(value: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{v:.7g}") for v in value.ravel())


def _geometry(properties: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    if "sitk_stuff" in properties:
        found = {name: properties["sitk_stuff"][name] for name in ("spacing", "origin", "direction")}
    else:
        affine = properties.get("nibabel_stuff", {}).get("original_affine")
        found = {"spacing": properties["spacing"], **({} if affine is None else {"affine": affine})}
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


def _unit(file: Path, reader: Any) -> Unit:
    if type(reader).__name__ == "NaturalImage2DIO":
        return "px"
    if type(reader).__name__ == "Tiff3DIO":
        return "mm" if file.with_suffix(".json").is_file() else "px"
    return "mm"

"""Label files, read by nnU-Net's readers and checked against each other."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable
from nnunetv2_sikd.image_files import check_file, check_finite, check_spacing

Unit = Literal["mm", "px"]

_DIRECTION_TOLERANCE = 1e-3
_SPACING_TOLERANCE = 1e-3  # relative: half a voxel over 500
_ORIGIN_TOLERANCE = 1e-2  # of the smallest spacing


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a file are.

    Attributes:
        shape: ``(Z, Y, X)``, with one slice for a 2D image.
        spacing: Of these axes. A 2D image has no thickness and gets 1.
        geometry: Spacing, origin, direction or affine, as far as the format has them.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    geometry: Mapping[str, NDArray[np.float64]]


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

    @property
    def grid(self) -> Grid:
        """Where its voxels are."""
        return Grid(self.values.shape, self.spacing, self.geometry)


def read_image(file: Path, reader: Any) -> tuple[NDArray[np.float32], Grid]:
    """Read and check a file as nnU-Net reads an image of one channel, or a picture of several colours.

    Shape:
        - result: ``(C, Z, Y, X)``

    Raises:
        SIKDError: It cannot be read, has NaN or infinite values, or an impossible spacing.
    """
    array, properties = _read(file, reader.read_images, [str(file)])
    check_finite(file, array)
    return array, _grid(file, array, properties, reader)


def read_segmentation(file: Path, reader: Any, labels: LabelTable) -> Segmentation:
    """Read a label file.

    Args:
        file: What to read.
        reader: One of nnU-Net's.
        labels: The labels that may occur in the file.

    Raises:
        SIKDError: It cannot be read, is no label image, or has values that are not declared.
    """
    array, properties = _read(file, reader.read_seg, str(file))
    if array.shape[0] != 1:
        raise SIKDError(f"{file}: has {array.shape[0]} channels; a label file has one")
    with np.errstate(invalid="ignore"):
        values = array[0].astype(np.int32)
    undeclared = ~np.isin(values, list(labels.values)) | (values != array[0])
    if undeclared.any():
        found = ", ".join(f"{value:g}" for value in np.unique(array[0][undeclared])[:5])
        raise SIKDError(
            f"{file}: has the value {found}, which {labels.source} does not declare: mend one of them, unless the file "
            "is of another data set"
        )
    grid = _grid(file, array, properties, reader)
    return Segmentation(values, grid.spacing, _unit(file, reader), grid.geometry)


def check_same_grid(reference: Segmentation, prediction: Segmentation, case: str) -> None:
    """Check that two label files cover the same voxels.

    Raises:
        SIKDError: Shape, spacing, origin or direction differ by more than rounding.
    """
    found = differences(reference.grid, prediction.grid)
    told = [f"{name} {other} where the reference has {value}" for name, (value, other) in found.items()]
    if told:
        raise SIKDError(f"{case}: the prediction has {' and '.join(told)}")


def differences(one: Grid, other: Grid) -> dict[str, tuple[tuple[float, ...], tuple[float, ...]]]:
    """In what two grids differ by more than rounding: name of the property, and its value in either."""
    found: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    if one.shape != other.shape:
        found["shape"] = (one.shape, other.shape)
    for name, value in one.geometry.items():
        theirs = other.geometry.get(name, np.array([]))
        if value.shape != theirs.shape or not _same(name, value, theirs, min(one.spacing)):
            pair = _rounded(value), _rounded(theirs)
            if pair[0] != pair[1]:
                found[name] = pair
    return found


def _read(file: Path, read: Callable[[Any], Any], argument: Any) -> tuple[Any, Mapping[str, Any]]:
    check_file(file)
    try:
        # Readers warn about each TIFF without spacing, between the steps of the progress bar.
        with contextlib.redirect_stdout(io.StringIO()):
            array, properties = read(argument)
    except Exception as error:  # each reader's library has its own
        told = " ".join(str(error).split())[-200:]
        raise SIKDError(f"{file}: cannot be read ({type(error).__name__}: {told}); copy or convert it again") from error
    return array, properties


def _grid(file: Path, array: NDArray[np.float32], properties: Mapping[str, Any], reader: Any) -> Grid:
    geometry = _geometry(properties)
    z, y, x = (float(value) for value in properties["spacing"])
    # nnU-Net's readers invent a spacing of about 999 along the axis that 2D images lack.
    if len(geometry["spacing"]) == 2 or type(reader).__name__ == "NaturalImage2DIO":
        z = 1.0
    check_spacing(file, (z, y, x))
    return Grid(array.shape[1:], (z, y, x), geometry)


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

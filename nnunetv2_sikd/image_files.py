"""Folders of images as nnU-Net names them, and whether a file is there to its end and fit to be read."""

from __future__ import annotations

import gzip
import io
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile
from nibabel.imageglobals import LoggingOutputSuppressor
from PIL import Image

from nnunetv2_sikd.errors import SIKDError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl", ".png", ".bmp", ".tif", ".tiff")
"""What nnU-Net's readers read."""

# A voxel of an electron microscope has nanometres, a body metres: beyond, a header is damaged.
_SPACING_MM = (1e-8, 1e4)


def channel_names(dataset_json: Mapping[str, Any]) -> dict[str, str]:
    """Names of a data set's channels; old data sets call them modalities, which nnU-Net still reads."""
    return dict(dataset_json["modality"] if "modality" in dataset_json else dataset_json["channel_names"])


def find_cases(images: Path, dataset_json: Mapping[str, Any], trained_on: str) -> list[str]:
    """Names of the cases in a folder of images, checked against what a network was trained on.

    Args:
        images: Folder of ``<case>_0000<ending>`` files.
        dataset_json: Content of the training data set's ``dataset.json``.
        trained_on: Name of the training data set.

    Raises:
        SIKDError: No folder, no images, or images of other channels or another file ending.
    """
    if not images.is_dir():
        raise SIKDError(f"{images}: no such folder of images")
    ending, channels = str(dataset_json["file_ending"]), channel_names(dataset_json)
    others = tuple(other for other in ENDINGS if other != ending)
    files = sorted(file.name for file in images.iterdir() if not file.name.startswith("."))
    found: dict[str, set[int]] = {}
    unnamed, elsewise = [], []
    for name in files:
        match = re.fullmatch(r"(.+)_(\d{4})" + re.escape(ending), name)
        if match:
            found.setdefault(match[1], set()).add(int(match[2]))
        elif name.endswith(ending):
            unnamed.append(name)
        elif re.fullmatch(r".+_\d{4}(" + "|".join(map(re.escape, others)) + ")", name):
            elsewise.append(name)
    if not found:
        instead = f"it has {files[0]} and the like: convert or rename them" if files else "it is empty"
        raise SIKDError(
            f"{images}: has no files named <case>_0000{ending}, which a network trained on {trained_on} reads; "
            f"{instead}"
        )
    if unnamed:  # nnU-Net would cut a case's name out of it all the same
        raise SIKDError(
            f"{images / unnamed[0]}: is not named <case>_0000{ending} as nnU-Net needs it: rename or move it"
        )
    if elsewise:  # nnU-Net would leave it out and say nothing
        raise SIKDError(
            f"{images / elsewise[0]}: is of another format than the {ending} that a network trained on {trained_on} "
            "reads; convert it, or move it away"
        )
    for case, numbers in found.items():
        if numbers != set(range(len(channels))) and not _is_coloured(images / f"{case}_0000{ending}", len(channels)):
            raise SIKDError(
                f"{images / case}_*{ending}: has channels {_listed(sorted(numbers))}, and a network trained on "
                f"{trained_on} needs {_listed(range(len(channels)))} ({_listed(channels.values())}): it cannot predict "
                "this data set"
            )
    return list(found)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def _is_coloured(file: Path, channels: int) -> bool:
    """Whether a picture holds all channels in one file, as nnU-Net reads RGB and RGBA."""
    if channels not in (3, 4) or file.suffix not in (".png", ".bmp", ".tif") or len(_channels_of(file)) > 1:
        return False
    try:
        with Image.open(file) as picture:
            return len(picture.getbands()) == channels
    except OSError:
        return False


def _channels_of(file: Path) -> list[Path]:
    """All channels of the case whose first channel's file this is."""
    start, _, ending = file.name.rpartition("_0000")  # the last one: a case may be named patient_00001
    channel = re.compile(re.escape(start) + r"_\d{4}" + re.escape(ending))
    return [other for other in file.parent.iterdir() if channel.fullmatch(other.name)]


def check_file(file: Path) -> None:
    """Check that an image or label file is whole, and that its header can be true; NIfTI files also for NaN.

    ITK, with which nnU-Net reads NIfTI files, silently takes 0 for NaN and infinite values, fills what a file lacks,
    and replaces a spacing of 0. A format that nnU-Net's own readers do not read is left to the reader that does.

    Raises:
        SIKDError: It is not there, damaged, has NaN or infinite values, or an impossible spacing.
    """
    if not file.is_file():
        raise SIKDError(f"{file}: no such file (or a folder, or a link to nothing); put the image there")
    if file.stat().st_size == 0:
        raise SIKDError(f"{file}: is empty; copy or convert it again")
    if file.name.endswith((".nii", ".nii.gz")):
        _check_nifti(file)
    elif not is_whole(file):
        raise SIKDError(f"{file}: cut short, or no {file.suffix} image; copy or convert it again")


def _check_nifti(file: Path) -> None:
    try:
        if file.suffix == ".gz":
            with gzip.open(file) as stream:  # to its end, where the check sum is
                content = stream.read()
        else:
            content = file.read_bytes()
        size = nibabel.Nifti2Header.sizeof_hdr
        two = size in (int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big"))
        kind: Any = nibabel.Nifti2Image if two else nibabel.Nifti1Image
        with LoggingOutputSuppressor():
            image = kind.from_stream(io.BytesIO(content))
            values = image.dataobj.get_unscaled()
        # As it is in the file: like ITK, nibabel replaces a spacing of 0, and takes away a minus.
        header = kind.header_class(content[: kind.header_class.sizeof_hdr], check=False)
    except Exception as error:  # of gzip, zlib and nibabel
        told = " ".join(str(error).split())[-200:]
        raise SIKDError(
            f"{file}: cut short, or no NIfTI image ({type(error).__name__}: {told}); copy or convert it again"
        ) from error
    if any(size != 1 for size in values.shape[3:]) or values.ndim < 2:
        raise SIKDError(
            f"{file}: has {values.ndim} dimensions {values.shape}, and nnU-Net needs one image of 2 or 3 in each file; "
            "split it"
        )
    # A minus is taken away by nnU-Net's readers too, and along an axis of one voxel 0 stands for no spacing.
    steps = zip(header["pixdim"][1:4], values.shape, strict=False)
    check_spacing(file, [1.0 if step == 0 and size == 1 else abs(float(step)) for step, size in steps])
    if not np.isfinite(image.affine).all():
        raise SIKDError(f"{file}: its origin or direction is no number; mend its header, or convert it again")
    if values.dtype.kind == "f":
        check_finite(file, values)


def check_spacing(file: Path, spacing: Sequence[float]) -> None:
    """Check that a spacing in mm can be true.

    Raises:
        SIKDError: It cannot.
    """
    low, high = _SPACING_MM
    for step in spacing:
        if not (math.isfinite(step) and low <= step <= high):
            raise SIKDError(
                f"{file}: has the spacing {', '.join(f'{each:g}' for each in spacing)} mm, which cannot be: mend its "
                "header, or convert it again"
            )


def check_finite(file: Path, values: Any) -> None:
    """Check that an image holds numbers alone.

    Raises:
        SIKDError: It has NaN or infinite values.
    """
    if not np.isfinite(values).all():
        raise SIKDError(
            f"{file}: has NaN or infinite values; replace them by what they stand for, such as the background's value"
        )


def is_whole(file: Path) -> bool:
    """Whether a label file is there and readable to its end: a kill can leave half of one.

    Of a format that nnU-Net's own readers do not read, only whether it is there and not empty. SimpleITK fills what a
    truncated NIfTI, TIFF or BMP file lacks with zeros and says nothing: others read these.
    """
    if not file.is_file() or file.stat().st_size == 0:
        return False
    try:
        if file.name.endswith(".gz"):
            with gzip.open(file) as stream:
                while stream.read(2**20):
                    pass
        elif file.suffix == ".nii":
            image: Any = nibabel.load(file)
            np.asarray(image.dataobj)
        elif file.suffix in (".tif", ".tiff"):
            return _tiff_is_whole(file)
        elif file.suffix == ".bmp":
            content = file.read_bytes()
            return len(content) > 6 and len(content) >= int.from_bytes(content[2:6], "little")
        elif file.name.endswith(ENDINGS):
            sitk.ReadImage(str(file))
    except Exception:  # each reader has errors of its own
        return False
    return True


def _tiff_is_whole(file: Path) -> bool:
    damage: list[logging.LogRecord] = []

    def note(record: logging.LogRecord) -> bool:
        damage.append(record)
        return False

    # Of a cut file tifffile returns the pages that are left, and logs an error.
    logger = logging.getLogger("tifffile")
    logger.addFilter(note)
    try:
        tifffile.imread(file)
    finally:
        logger.removeFilter(note)
    return not any(record.levelno >= logging.ERROR for record in damage)

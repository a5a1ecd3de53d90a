"""Folders of images as nnU-Net names them, and whether a file is there to its end."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
import tifffile

from nnunetv2_sikd.errors import SIKDError


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
    files = sorted(file.name for file in images.iterdir() if not file.name.startswith("."))
    found: dict[str, set[int]] = {}
    unnamed = []
    for name in files:
        match = re.fullmatch(r"(.+)_(\d{4})" + re.escape(ending), name)
        if match:
            found.setdefault(match[1], set()).add(int(match[2]))
        elif name.endswith(ending):
            unnamed.append(name)
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
    for case, numbers in found.items():
        if numbers != set(range(len(channels))):
            raise SIKDError(
                f"{images / case}_*{ending}: has channels {_listed(sorted(numbers))}, and a network trained on "
                f"{trained_on} needs {_listed(range(len(channels)))} ({_listed(channels.values())}): it cannot predict "
                "this data set"
            )
    return list(found)


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(map(str, values))


def is_whole(file: Path) -> bool:
    """Whether a label file is there and readable to its end: a kill can leave half of one.

    SimpleITK fills what a truncated NIfTI, TIFF or BMP file lacks with zeros and says nothing: others read these.
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
        else:
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

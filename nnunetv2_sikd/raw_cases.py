"""Raw images and their labels, checked before nnU-Net reads them: its own commands end in tracebacks, or silently."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import choose_reader, list_names, load_dataset_json
from nnunetv2_sikd.evaluation.images import Grid, differences, read_image, read_segmentation
from nnunetv2_sikd.evaluation.labels import LabelTable, check_labels
from nnunetv2_sikd.image_files import channel_names, find_cases

_REFUSED = ("shape", "spacing")  # by nnU-Net; of other differences it warns


def images_of(folder: Path, case: str, dataset_json: Mapping[str, Any]) -> list[Path]:
    """A case's files, one a channel, or a single picture of several colours."""
    ending = str(dataset_json["file_ending"])
    channels = [folder / f"{case}_{channel:04d}{ending}" for channel in range(len(channel_names(dataset_json)))]
    return channels if len(channels) == 1 or os.path.lexists(channels[1]) else channels[:1]


def training_cases(raw: Path, dataset_json: Mapping[str, Any]) -> dict[str, tuple[list[Path], Path]]:
    """Images and label file of each training case of a raw data set, as nnU-Net finds them.

    Raises:
        SIKDError: No images, or images of other channels or another file ending.
    """
    if "dataset" not in dataset_json:
        return {
            case: (
                images_of(raw / "imagesTr", case, dataset_json),
                raw / "labelsTr" / f"{case}{dataset_json['file_ending']}",
            )
            for case in find_cases(raw / "imagesTr", dataset_json, raw.name)
        }
    file = raw / "dataset.json"
    try:
        named = {str(case): (files["images"], files["label"]) for case, files in dataset_json["dataset"].items()}
        found = {
            case: ([raw / os.path.expandvars(image) for image in images], raw / os.path.expandvars(label))
            for case, (images, label) in named.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise SIKDError(f'{file}: \'dataset\' must have "images" and a "label" for each case; mend it') from error
    if not found:
        raise SIKDError(f"{file}: 'dataset' names no cases; name some, or leave it out")
    for case, (images, _) in named.items():
        if not isinstance(images, list) or not images:
            raise SIKDError(
                f"{file}: case {case!r} has images {repr(images)[:80]}, which must be a list of files; mend it"
            )
    return found


def check_images(files: Sequence[Path], reader: Any, channels: int) -> Grid:
    """Check the images of one case.

    Args:
        files: One a channel, or a picture of several colours.
        reader: One of nnU-Net's.
        channels: How many there must be.

    Returns:
        Where their voxels are.

    Raises:
        SIKDError: One cannot be read, or they do not fit each other.
    """
    grids, found = [], 0
    for file in files:
        array, grid = read_image(file, reader)
        found += len(array)
        grids.append(grid)
        _refuse(file, differences(grids[0], grid), files[0].name, _REFUSED)
    if found != channels:
        raise SIKDError(f"{files[0]}: has {found} channels and needs {channels}; convert it")
    return grids[0]


def check_case(
    files: Sequence[Path], label: Path, reader: Any, labels: LabelTable, channels: int, *, strict: bool = False
) -> list[str]:
    """Check the images and the label file of one case.

    Args:
        files: Its images.
        label: Its label file.
        reader: One of nnU-Net's.
        labels: The labels that may occur.
        channels: How many channels there must be.
        strict: Also refuse what nnU-Net warns about: another origin or direction.

    Returns:
        What nnU-Net warns about, in words.

    Raises:
        SIKDError: One cannot be read, or they do not fit each other.
    """
    grid = check_images(files, reader, channels)
    found = differences(grid, read_segmentation(label, reader, labels).grid)
    _refuse(label, found, files[0].name, tuple(found) if strict else _REFUSED)
    return [f"{label}: {_told(name, pair, files[0].name)}" for name, pair in found.items()]


def check_raw_data(raw: Path) -> None:
    """Check all training cases of a raw data set, as nnU-Net's ``--verify_dataset_integrity`` does, and NaN.

    Args:
        raw: Folder in ``nnUNet_raw``.

    Raises:
        SIKDError: ``dataset.json``, an image or a label file is not as it should be.
    """
    source = raw / "dataset.json"
    dataset_json, _ = load_dataset_json(source, [], "nnUNet_raw")
    check_labels(dataset_json, source)
    cases = training_cases(raw, dataset_json)
    missing = [case for case, (_, label) in cases.items() if not label.is_file()]
    if missing:
        raise SIKDError(
            f"{cases[missing[0]][1]}: no such file (or a folder, or a link to nothing); put the labels of "
            f"{list_names(missing)} there"
        )
    reader = choose_reader(dataset_json, next(iter(cases.values()))[0][0])
    labels, channels = LabelTable.from_dataset_json(dataset_json, source), len(channel_names(dataset_json))
    warnings = []
    for images, label in tqdm(cases.values(), desc="Checking raw data", unit="case"):
        warnings += check_case(images, label, reader, labels, channels)
    if warnings:
        print(f"Warning: {warnings[0]}; nnU-Net takes such files ({len(warnings)} in all), see whether they fit")


def _refuse(file: Path, found: Mapping[str, Any], other: str, refused: Sequence[str]) -> None:
    for name in refused:
        if name in found:
            raise SIKDError(f"{file}: {_told(name, found[name], other)}; mend one of them")


def _told(name: str, pair: tuple[Any, Any], other: str) -> str:
    return f"has {name} {pair[1]} where {other} has {pair[0]}"

"""Class averaging of raw images, before any resampling."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable
from nnunetv2_sikd.files import file_hash, write_json, written_whole
from nnunetv2_sikd.folders import check_output, make_folder
from nnunetv2_sikd.image_files import channel_names, find_cases
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.raw_cases import check_case, images_of

_RECORD = "averaged_with.json"


def average_images(planned: PlannedConfiguration, images: Path, labels: Path, output: Path) -> None:
    """Average every image of a folder by its label; averages that are there stay, if they are of what is there now.

    ``averaged_with.json`` beside them tells: SHA-256 of each case's images and label, and how they were averaged.

    Args:
        planned: Decides file ending, ignore label, and whether and along which axis slices are averaged apart.
        images: Folder of ``<case>_<channel><file ending>``.
        labels: Folder of ``<case><file ending>``.
        output: Folder for images of the same names.

    Raises:
        SIKDError: An image has no label, or one of another shape, or cannot be read; or the output folder holds images
            that this did not write.
    """
    ending = planned.dataset_json["file_ending"]
    cases = sorted(find_cases(images, planned.dataset_json, planned.plans.dataset_name))
    if not labels.is_dir():
        raise SIKDError(f"{labels}: no such folder of labels")
    for folder in (images, labels):
        if os.path.realpath(output) == os.path.realpath(folder):
            raise SIKDError(f"{output}: would overwrite the {folder.name}, choose another folder with -o")
    reader = planned.plans.image_reader_writer_class()
    declared = LabelTable.from_dataset_json(planned.dataset_json, planned.dataset_json_file)
    channels = len(channel_names(planned.dataset_json))
    per_slice = len(planned.configuration.patch_size) == 2
    slice_axis = planned.plans.transpose_forward[0] if per_slice else None
    if slice_axis is not None and "Reorient" in type(reader).__name__:
        raise SIKDError(
            f"{planned.plans.plans_name}: its reader {type(reader).__name__} turns images before they are cut into "
            "slices, and averaging here would take other slices; look at the teacher's own final validation instead"
        )
    check_output(output)
    how = {"slice_axis": slice_axis, "ignore_label": planned.label_manager.ignore_label}
    made = _made(output, how, ending)
    for case in tqdm(cases, desc="Class averages", unit="case"):
        label_file = labels / f"{case}{ending}"
        files = images_of(images, case, planned.dataset_json)
        source = [file_hash(file) for file in (*files, label_file) if file.is_file()]
        missing = [file for file in files if made.get(case) != source or not (output / file.name).is_file()]
        if not missing:
            continue
        check_case(files, label_file, reader, declared, channels, strict=True)
        make_folder(output)
        made.pop(case, None)  # until all of its files are of what is there now
        write_json(output / _RECORD, {**how, "cases": made})  # before images that would be nobody's
        label = _read(label_file)
        for file in missing:
            averaged = _average_image(_read(file), label, slice_axis, planned.label_manager.ignore_label, file)
            _write(averaged, output / file.name)
        made[case] = source
        write_json(output / _RECORD, {**how, "cases": made})


def _made(output: Path, how: Mapping[str, Any], ending: str) -> dict[str, list[str]]:
    """SHA-256 of what each case there was averaged from; nothing of what was averaged otherwise."""
    try:
        record = json.loads((output / _RECORD).read_text(encoding="utf-8"))
        if {key: record.get(key) for key in how} == how:
            return dict(record["cases"])
    except FileNotFoundError:
        if output.is_dir() and any(output.glob(f"*{ending}")):
            told = f"{output}: holds images that this command did not write, or an earlier version of it"
            raise SIKDError(f"{told}; name another folder with -o") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # damaged: all are averaged anew
    return {}


def _average_image(
    image: sitk.Image, label: sitk.Image, slice_axis: int | None, ignore_label: int | None, file: Path
) -> sitk.Image:
    values, classes = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label)
    colours = image.GetNumberOfComponentsPerPixel()
    # Channels first, and 2D images as volumes of one slice, as nnU-Net reads them.
    channels = np.moveaxis(values, -1, 0) if colours > 1 else values[None]
    if channels.shape[1:] != classes.shape:
        raise SIKDError(f"{file}: has shape {channels.shape[1:]} and its label {classes.shape}: mend one of them")
    channels, classes = channels.astype(np.float64), classes.astype(np.int64)
    if slice_axis is not None and classes.ndim == 3:
        batch, classes = np.moveaxis(channels, slice_axis + 1, 0), np.moveaxis(classes, slice_axis, 0)
        averaged = np.moveaxis(class_average(batch, classes, ignore_label=ignore_label), 0, slice_axis + 1)
    else:
        averaged = class_average(channels[None], classes[None], ignore_label=ignore_label)[0]
    # 8-bit formats cannot hold fractions; the others get them.
    if file.suffix.lower() in (".png", ".bmp", ".jpg", ".jpeg"):
        averaged = np.rint(averaged).astype(values.dtype)
    else:
        averaged = averaged.astype(np.float32)
    result = sitk.GetImageFromArray(np.moveaxis(averaged, 0, -1) if colours > 1 else averaged[0], isVector=colours > 1)
    result.CopyInformation(image)
    return result


def _read(file: Path) -> sitk.Image:
    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise SIKDError(f"{file}: cannot be read ({str(error).strip().splitlines()[-1]})") from error


def _write(image: sitk.Image, target: Path) -> None:
    try:
        with written_whole(target) as partial:
            sitk.WriteImage(image, str(partial), useCompression=True)
    except (OSError, RuntimeError) as error:
        raise SIKDError(
            f"{target}: cannot be written; check free space and permissions, or name another folder with -o"
        ) from error

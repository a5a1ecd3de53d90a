"""Class averaging of raw images, before any resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder
from tqdm import tqdm

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import written_whole
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration


def average_images(planned: PlannedConfiguration, images: Path, labels: Path, output: Path) -> None:
    """Average every image of a folder by its label; images that are there already are kept.

    Args:
        planned: Decides file ending, ignore label, and whether and along which axis slices are averaged apart.
        images: Folder of ``<case>_<channel><file ending>``.
        labels: Folder of ``<case><file ending>``.
        output: Folder for images of the same names.

    Raises:
        SIKDError: An image has no label, or one of another shape, or cannot be read.
    """
    ending = planned.dataset_json["file_ending"]
    for folder in (images, labels):
        if not folder.is_dir():
            raise SIKDError(f"{folder}: no such folder")
    if output.resolve() == images.resolve():
        raise SIKDError(f"{output}: would overwrite the images, choose another folder with -o")
    cases = sorted(get_identifiers_from_splitted_dataset_folder(str(images), ending))
    if not cases:
        raise SIKDError(f"{images}: has no images named <case>_0000{ending}")
    per_slice = len(planned.configuration.patch_size) == 2
    slice_axis = planned.plans.transpose_forward[0] if per_slice else None
    output.mkdir(parents=True, exist_ok=True)
    for case in tqdm(cases, desc="Class averages", unit="case"):
        label_file = labels / f"{case}{ending}"
        if not label_file.is_file():
            raise SIKDError(f"{label_file}: not there, so {case} cannot be averaged")
        label = _read(label_file)
        for file in sorted(images.glob(f"{case}_????{ending}")):
            target = output / file.name
            if not target.is_file():
                averaged = _average_image(_read(file), label, slice_axis, planned.label_manager.ignore_label, file)
                _write(averaged, target)


def _average_image(
    image: sitk.Image, label: sitk.Image, slice_axis: int | None, ignore_label: int | None, file: Path
) -> sitk.Image:
    values, classes = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(label)
    colours = image.GetNumberOfComponentsPerPixel()
    # Channels first, and 2D images as volumes of one slice, as nnU-Net reads them.
    channels = np.moveaxis(values, -1, 0) if colours > 1 else values[None]
    if channels.shape[1:] != classes.shape:
        raise SIKDError(f"{file}: has shape {channels.shape[1:]} and its label {classes.shape}: mend one of them")
    channels = channels.astype(np.float64)
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
    with written_whole(target) as partial:
        sitk.WriteImage(image, str(partial), useCompression=True)

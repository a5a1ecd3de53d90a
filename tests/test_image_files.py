"""Folders of images as nnU-Net names them, and files that a kill cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.image_files import find_cases, is_whole
from tests.helpers import make_dataset_json


def refused(images: Path, channels: int = 1) -> str:
    described = make_dataset_json(regions=False, ignore=False, channels=channels, num_cases=1)
    with pytest.raises(SIKDError) as raised:
        find_cases(images, described, "Dataset901_Tiny")
    return str(raised.value)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def test_cases_of_a_folder(tmp_path: Path) -> None:
    described = make_dataset_json(regions=False, ignore=False, channels=2, num_cases=1)
    names = ("b_0001.nii.gz", "b_0000.nii.gz", "a_1_0000.nii.gz", "a_1_0001.nii.gz", "notes.txt", "._b_0000.nii.gz")
    assert find_cases(touch(tmp_path, *names), described, "") == ["a_1", "b"]


@pytest.mark.parametrize(
    ("names", "channels", "expected"),
    [
        (
            [],
            1,
            ": has no files named <case>_0000.nii.gz, which a network trained on Dataset901_Tiny reads; it is empty",
        ),
        (["a_0000.png"], 1, "reads; it has a_0000.png and the like: convert or rename them"),
        (["a.nii.gz"], 1, "reads; it has a.nii.gz and the like: convert or rename them"),
        (["a_0000.nii.gz", "b.nii.gz"], 1, "b.nii.gz: is not named <case>_0000.nii.gz as nnU-Net needs it"),
        (
            ["a_0000.nii.gz"],
            2,
            "a_*.nii.gz: has channels 0, and a network trained on Dataset901_Tiny needs 0, 1 (contra",
        ),
        (["a_0001.nii.gz"], 1, "has channels 1, and a network trained on Dataset901_Tiny needs 0 (contrast 0)"),
        (["a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"], 1, "b_*.nii.gz: has channels 0, 1, and"),
    ],
)
def test_folders_that_cannot_be_predicted(names: list[str], channels: int, expected: str, tmp_path: Path) -> None:
    assert expected in refused(touch(tmp_path, *names), channels)


def test_no_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none").endswith("none: no such folder of images")


def _by_simpleitk(file: Path, label: np.ndarray) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(label), str(file))


def _by_pillow(file: Path, label: np.ndarray) -> None:
    Image.fromarray(label[3]).save(file)


def _by_tifffile(file: Path, label: np.ndarray) -> None:
    tifffile.imwrite(file, data=label, compression="zlib")  # as nnU-Net does


@pytest.mark.parametrize("content", ["flat", "noise"])
@pytest.mark.parametrize(
    ("ending", "write"),
    [
        *((ending, _by_simpleitk) for ending in (".nii.gz", ".nii", ".nrrd", ".mha", ".gipl.gz")),
        *((ending, _by_pillow) for ending in (".png", ".bmp")),
        (".tif", _by_tifffile),
    ],
)
def test_cut_files_are_noticed(
    ending: str, write: Callable[[Path, np.ndarray], None], content: str, tmp_path: Path
) -> None:
    label = np.zeros((6, 32, 32), np.uint8)
    label[2:4, 10:20, 8:24] = 1
    if content == "noise":
        label = np.random.default_rng(0).integers(0, 3, label.shape).astype(np.uint8)
    whole, cut = tmp_path / f"whole{ending}", tmp_path / f"cut{ending}"
    write(whole, label)
    assert is_whole(whole)
    written = whole.read_bytes()
    for length in {0, 1, *range(0, len(written), max(1, len(written) // 20)), len(written) - 1}:
        cut.write_bytes(written[:length])
        assert not is_whole(cut), length


def test_what_is_not_there_is_not_whole(tmp_path: Path) -> None:
    assert not is_whole(tmp_path / "none.nii.gz")
    assert not is_whole(tmp_path)

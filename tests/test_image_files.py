"""Folders of images as nnU-Net names them, and files that a kill cut off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.image_files import check_file, find_cases, is_whole
from nnunetv2_sikd.raw_cases import training_cases
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


@pytest.mark.parametrize("name", ["a_0000.npy", "a_0000.h5"])
def test_other_formats_are_left_to_their_reader(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"of a reader of one's own")
    assert is_whole(file)
    check_file(file)
    file.write_bytes(b"")
    assert not is_whole(file)
    with pytest.raises(SIKDError, match="is empty"):
        check_file(file)


def test_coloured_pictures_of_cases_with_numbers(tmp_path: Path) -> None:
    described = {**make_dataset_json(regions=False, ignore=False, channels=3, num_cases=1), "file_ending": ".png"}
    for case in ("patient_00001", "patient_00002", "p(1)_0000"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{case}_0000.png")
    assert sorted(find_cases(tmp_path, described, "")) == ["p(1)_0000", "patient_00001", "patient_00002"]
    Image.new("RGB", (4, 4)).save(tmp_path / "patient_00001_0001.png")
    with pytest.raises(SIKDError, match=r"patient_00001_\*\.png: has channels 0, 1"):
        find_cases(tmp_path, described, "")


def _with_steps(file: Path, shape: tuple[int, ...], steps: tuple[float, ...]) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), file)
    content = bytearray(file.read_bytes())
    content[80 : 80 + 4 * len(steps)] = np.array(steps, "<f4").tobytes()
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((4, 5, 6), (-1, 1, -5)), ((4, 5, 1), (1, 1, 0)), ((4, 1, 1), (1, 0, 0)), ((4, 5), (1, -2))],
)
def test_spacings_that_nnunet_reads(shape: tuple[int, ...], steps: tuple[float, ...], tmp_path: Path) -> None:
    check_file(_with_steps(tmp_path / "a_0000.nii", shape, steps))


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((4, 5, 6), (1, 1, 0)), ((4, 5, 1), (0, 1, 1)), ((4, 5, 1), (1, 1, np.nan)), ((4, 5, 6), (1, 1, -1e30))],
)
def test_spacings_that_cannot_be(shape: tuple[int, ...], steps: tuple[float, ...], tmp_path: Path) -> None:
    with pytest.raises(SIKDError, match="spacing"):
        check_file(_with_steps(tmp_path / "a_0000.nii", shape, steps))


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({}, "'dataset' names no cases"),
        ({"a": {"images": [], "label": "a.nii.gz"}}, r"case 'a' has images \[\], which must be a list of files"),
        ({"a": {"images": "a.nii.gz", "label": "a.nii.gz"}}, "case 'a' has images 'a.nii.gz', which must be a list"),
        ({"a": {"images": [5], "label": "a.nii.gz"}}, 'must have "images" and a "label"'),
    ],
)
def test_cases_that_dataset_json_does_not_name_well(dataset: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SIKDError, match=rf"dataset\.json: .*{said}"):
        training_cases(tmp_path, {"dataset": dataset, "file_ending": ".nii.gz", "channel_names": {"0": "MR"}})


def test_cases_that_dataset_json_names(tmp_path: Path) -> None:
    described = {"dataset": {"a": {"images": ["x/a.nii.gz"], "label": "y/a.nii.gz"}}}
    assert training_cases(tmp_path, described) == {"a": ([tmp_path / "x/a.nii.gz"], tmp_path / "y/a.nii.gz")}

"""``nnUNetv2_sikd average``: raw images averaged by their labels, and what a second run keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing import images as module
from nnunetv2_sikd.preprocessing.images import average_images
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from tests.helpers import PreprocessedDataset

IMAGE = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
LABEL = np.random.default_rng(1).integers(0, 3, (2, 6, 5)).astype(np.uint8)


def write(array: np.ndarray, file: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(file))


class Folders:
    """Images of two channels, labels, and where averages go."""

    def __init__(self, folder: Path, dataset: PreprocessedDataset) -> None:
        self.images, self.labels, self.output = (folder / name for name in ("images", "labels", "flat"))
        self.dataset = dataset
        for made in (self.images, self.labels):
            made.mkdir()
        self.add("a")

    def add(self, case: str, image: np.ndarray = IMAGE, label: np.ndarray = LABEL) -> None:
        for channel in range(2):
            write(image, self.images / f"{case}_{channel:04d}.nii.gz")
        write(label, self.labels / f"{case}.nii.gz")

    def average(self, configuration: str = "2d", output: Path | None = None) -> dict[str, np.ndarray]:
        """Run it; the averages that are there then."""
        planned = PlannedConfiguration.load(self.dataset.name, configuration, "nnUNetPlans")
        average_images(planned, self.images, self.labels, output or self.output)
        files = sorted(self.output.glob("*.nii.gz"))
        return {file.name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))) for file in files}


@pytest.fixture
def folders(dataset_2d: PreprocessedDataset, tmp_path: Path) -> Folders:
    return Folders(tmp_path, dataset_2d)


def expected(image: np.ndarray = IMAGE, label: np.ndarray = LABEL) -> np.ndarray:
    flat = np.empty_like(image)
    for z, k in ((z, k) for z in range(len(label)) for k in range(3)):
        flat[z][label[z] == k] = image[z][label[z] == k].mean()
    return flat


def test_each_slice_is_flat(folders: Folders) -> None:
    found = folders.average()
    assert list(found) == ["a_0000.nii.gz", "a_0001.nii.gz"]
    for flat in found.values():
        np.testing.assert_allclose(flat, expected(), rtol=1e-5)


def test_misfits_are_refused(folders: Folders) -> None:
    folders.average()
    folders.add("b", image=IMAGE[:, :3])
    label = folders.labels / "b.nii.gz"
    label.rename(folders.labels / "away")
    with pytest.raises(SIKDError, match=r"b\.nii\.gz: no such file"):
        folders.average()
    (folders.labels / "away").rename(label)
    with pytest.raises(SIKDError, match=r"b.nii.gz: has shape \(2, 6, 5\) where b_0000.nii.gz has \(2, 3, 5\)"):
        folders.average()
    assert len(list(folders.output.glob("*.nii.gz"))) == 2
    with pytest.raises(SIKDError, match="would overwrite"):
        folders.average(output=folders.images)


def test_a_reader_that_turns_images_is_refused(folders: Folders) -> None:
    file = folders.dataset.folder / "nnUNetPlans.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_reader_writer": "NibabelIOWithReorient"}))
    with pytest.raises(SIKDError, match="reader NibabelIOWithReorient turns images"):
        folders.average()
    assert not folders.output.exists()


def test_a_second_run_averages_what_is_missing(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.average()
    folders.add("b")
    (folders.output / "a_0001.nii.gz").unlink()
    read: list[str] = []
    kept = module._read
    monkeypatch.setattr(module, "_read", lambda file: read.append(file.name) or kept(file))
    assert len(folders.average()) == 4
    assert sorted(read) == ["a.nii.gz", "a_0001.nii.gz", "b.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]
    read.clear()
    assert len(folders.average()) == 4
    assert not read


@pytest.mark.parametrize("changed", ["image", "label"])
def test_what_was_corrected_is_averaged_again(folders: Folders, changed: str) -> None:
    folders.average()
    content = {"image": IMAGE, "label": LABEL, changed: (IMAGE if changed == "image" else LABEL)[::-1]}
    folders.add("a", **content)
    np.testing.assert_allclose(folders.average()["a_0001.nii.gz"], expected(**content), rtol=1e-5)


def test_whole_volumes_take_the_place_of_slices(folders: Folders) -> None:
    folders.average()
    flat = folders.average("3d_fullres")["a_0000.nii.gz"]
    for k in range(3):
        np.testing.assert_allclose(flat[k == LABEL], IMAGE[k == LABEL].mean(), rtol=1e-4)


@pytest.mark.parametrize("label", [LABEL[::-1], LABEL], ids=["corrected", "put back"])
def test_one_that_was_cut_is_averaged_again(
    folders: Folders, monkeypatch: pytest.MonkeyPatch, label: np.ndarray
) -> None:
    folders.average()
    folders.add("a", label=LABEL[::-1])
    kept, written = module._write, []

    def cut(image: SimpleITK.Image, target: Path) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(target)
        kept(image, target)

    monkeypatch.setattr(module, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        folders.average()
    monkeypatch.setattr(module, "_write", kept)
    folders.add("a", label=label)
    for flat in folders.average().values():
        np.testing.assert_allclose(flat, expected(label=label), rtol=1e-5)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"cases": 1}'])
def test_after_a_damaged_record_all_are_averaged(folders: Folders, content: str) -> None:
    folders.average()
    folders.add("a", label=LABEL[::-1])
    (folders.output / "averaged_with.json").write_text(content)
    np.testing.assert_allclose(folders.average()["a_0000.nii.gz"], expected(label=LABEL[::-1]), rtol=1e-5)


def test_images_of_others_stay(folders: Folders) -> None:
    folders.output.mkdir()
    (folders.output / "a_0000.nii.gz").write_text("precious")
    with pytest.raises(SIKDError, match="holds images that this command did not write"):
        folders.average()
    assert (folders.output / "a_0000.nii.gz").read_text() == "precious"

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_sikd.demo import dataset
from nnunetv2_sikd.demo.dataset import (
    LABELS,
    SIZE,
    SOURCE,
    SOURCE_SCANNER,
    TARGET,
    TARGET_SCANNER,
    Scanner,
    draw_case,
    write_datasets,
)

CLEAN = Scanner(gamma=1.0, scatter=0.0, bias=0.0, blur_pixels=0.0, noise=0.0)


def draw(case: int, scanner: Scanner = SOURCE_SCANNER) -> tuple[np.ndarray, np.ndarray]:
    return draw_case(np.random.default_rng((0, case)), scanner)


def test_equal_generators_draw_equal_cases_and_others_differ() -> None:
    image, label = draw(1)
    again, label_again = draw(1)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(label, label_again)
    assert not np.array_equal(label, draw(2)[1])


@pytest.mark.parametrize("scanner", [SOURCE_SCANNER, TARGET_SCANNER])
@pytest.mark.parametrize("case", range(20))
def test_every_case_has_every_structure(case: int, scanner: Scanner) -> None:
    image, label = draw(case, scanner)
    assert image.shape == label.shape == (SIZE, SIZE)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    assert np.isfinite(image).all()
    sizes = np.bincount(label.ravel(), minlength=len(LABELS))
    assert len(sizes) == len(LABELS)
    assert (sizes > 20).all()


def test_cavity_is_enclosed_by_the_wall() -> None:
    _, label = draw(3)
    cavity = label == LABELS["cavity"]
    beside = np.zeros_like(cavity)
    for axis in (0, 1):
        for step in (-1, 1):
            beside |= np.roll(cavity, step, axis)
    assert set(label[beside & ~cavity]) == {LABELS["wall"]}


def test_unlabelled_blobs_are_as_bright_as_the_structures() -> None:
    image, label = draw(0, CLEAN)
    assert np.sum(image[label == 0] > np.median(image[label == LABELS["crescent"]])) > 20


def test_scanners_see_the_same_anatomy_under_another_contrast() -> None:
    source, label = draw(4)
    target, target_label = draw(4, TARGET_SCANNER)
    np.testing.assert_array_equal(label, target_label)

    def contrast(image: np.ndarray) -> float:
        cavity, wall = (float(image[label == LABELS[name]].mean()) for name in ("cavity", "wall"))
        return (cavity - wall) / (cavity + wall)

    assert contrast(target) < 0.75 * contrast(source)


def test_written_data_sets_are_what_nnunet_expects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "NUM_TRAINING", 3)
    monkeypatch.setattr(dataset, "NUM_TEST", 2)
    written = []
    write_datasets(tmp_path, lambda: written.append(1))
    assert len(written) == 3 + 2 + 2

    for name, folders in ((SOURCE, {"Tr": 3, "Ts": 2}), (TARGET, {"Ts": 2})):
        description = json.loads((tmp_path / name / "dataset.json").read_text())
        assert description["labels"] == LABELS
        assert description["numTraining"] == folders.get("Tr", 0)
        for suffix, count in folders.items():
            labels = sorted((tmp_path / name / f"labels{suffix}").iterdir())
            assert len(labels) == count
            for file in labels:
                case = file.name.removesuffix(description["file_ending"])
                image = sitk.ReadImage(str(tmp_path / name / f"images{suffix}" / f"{case}_0000.nii.gz"))
                label = sitk.ReadImage(str(file))
                assert image.GetSize() == label.GetSize() == (SIZE, SIZE)
                assert image.GetSpacing() == label.GetSpacing() == (dataset.SPACING_MM, dataset.SPACING_MM)


def test_training_and_test_cases_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "NUM_TRAINING", 2)
    monkeypatch.setattr(dataset, "NUM_TEST", 2)
    write_datasets(tmp_path)
    labels = [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in sorted(tmp_path.glob("*/labels*/*"))]
    assert len(labels) == 6
    assert len({label.tobytes() for label in labels}) == 6

"""Intensities per class against the plain definitions, on all pixels at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunetv2_sikd.figures.cases import averaged_apart, validation_cases
from nnunetv2_sikd.figures.class_intensities import BIN_SD, measure_intensities, overlap, table
from tests.figures.conftest import load
from tests.helpers import IGNORE_LABEL, PreprocessedDataset, make_preprocessed_dataset, read_array


def classes_of(label: NDArray[np.int16]) -> NDArray[np.int16]:
    return np.where(label == -1, 0, label)


@pytest.mark.parametrize("dim", [2, 3])
def test_moments_and_histograms(dim: int, nnunet_folders: Path) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=dim, num_cases=3, channels=2, ignore=True)
    channels = measure_intensities(load(dataset), list(dataset.cases))
    images = [read_array(dataset.source / f"{case}.b2nd") for case in dataset.cases]
    labels = [classes_of(read_array(dataset.source / f"{case}_seg.b2nd")[0]) for case in dataset.cases]
    assert [[each.value for each in classes] for classes in channels] == [[0, 1, 2]] * 2
    assert [each.name for each in channels[0]] == ["background", "shell", "core"]
    for c, classes in enumerate(channels):
        width = BIN_SD * images[0][c].astype(np.float64).std()
        for each in classes:
            pixels, flat, spread = [], [], []
            for image, label in zip(images, labels, strict=True):
                parts = zip(image[c], label, strict=True) if dim == 2 else [(image[c], label)]
                for values, where in parts:
                    inside = values[where == each.value].astype(np.float64)
                    pixels.append(inside)
                    flat.append(np.full(inside.size, inside.mean()))
                    if each.value:
                        spread.append((inside.mean() - values[where == 0].mean()) / image[c].std())
            every, averaged = np.concatenate(pixels), np.concatenate(flat)
            assert each.mean == pytest.approx(every.mean(), abs=1e-5)
            assert each.sd_images == pytest.approx(every.std(), rel=1e-5)
            assert each.sd_averages == pytest.approx(averaged.std(), rel=1e-4, abs=1e-6)
            assert each.sd_within == pytest.approx((every - averaged).std(), rel=1e-5)
            np.testing.assert_allclose(each.from_background, spread, rtol=1e-4)
            for histogram, expected in ((each.images, every), (each.averages, averaged)):
                assert sum(histogram.values()) == expected.size
                bins = np.array(sorted(histogram))
                counts = np.histogram(expected, np.concatenate([(bins - 0.5) * width, [(bins[-1] + 0.5) * width]]))[0]
                # a value on the border of two bins may fall either way
                assert np.abs(counts - [histogram[k] for k in bins.tolist()]).sum() <= max(2, 0.001 * expected.size)
            # Averaging takes the texture away.
            assert each.sd_averages < 0.6 * each.sd_images


def test_share_near_background(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=2)
    label = np.zeros((4, 8, 8), np.int16)
    label[:, :4] = 1
    image = np.zeros((1, 4, 8, 8), np.float32)
    image[0, :, 4:] = [[[0.0, 2.0] * 4]]  # background's mean is 1 in every slice
    image[0, :, :4] = np.array([1.1, 0.9, 1.2, 1.0])[:, None, None]
    monkeypatch.setattr("nnunetv2_sikd.figures.class_intensities.read_case", lambda *_: (image, label))
    (classes,) = measure_intensities(load(dataset), ["any"])
    sd = image.std()
    assert 0.1 / sd < 0.2 < 0.2 / sd < 0.4
    np.testing.assert_allclose(classes[1].from_background, np.array([0.1, -0.1, 0.2, 0.0]) / sd, atol=1e-6)
    assert classes[1].near_background == 0.75
    assert np.isnan(classes[0].near_background)


def test_overlap_by_hand() -> None:
    one = Counter({0: 3, 1: 1})
    assert overlap(one, Counter({0: 30, 1: 10})) == 1
    assert overlap(one, Counter({5: 2})) == 0
    assert overlap(one, Counter({1: 1, 2: 1})) == pytest.approx(0.25)


def test_table_names_the_nearest_class(dataset_2d: PreprocessedDataset) -> None:
    planned = load(dataset_2d)
    rows = table(planned, measure_intensities(planned, list(dataset_2d.cases)))
    assert [(row["channel"], row["class"]) for row in rows[3:]] == [
        ("contrast 1", name) for name in ("background", "shell", "core")
    ]
    # levels 100, 200, 300 below the noise of resampling and cropping
    assert [row["neighbour"] for row in rows[:3]] in (
        ["shell", "background", "shell"],
        ["shell", "core", "shell"],
    )
    assert all(0 <= row["overlap_averages"] <= row["overlap_images"] <= 1 for row in rows)
    assert averaged_apart(planned) == rows[0]["averaged_per"] == "slice"
    label = np.concatenate([read_array(dataset_2d.source / f"{case}_seg.b2nd")[0] for case in dataset_2d.cases])
    assert sum(row["pixels"] for row in rows[:3]) == (label != IGNORE_LABEL).sum()


def test_validation_cases_are_the_folds(dataset_2d: PreprocessedDataset) -> None:
    planned = load(dataset_2d)
    assert validation_cases(planned, 1) == ["case_01"]
    assert validation_cases(planned, "all") == list(dataset_2d.cases)
    before = sorted(dataset_2d.folder.rglob("*"))
    assert set(validation_cases(planned, 7)) < set(dataset_2d.cases)  # nnU-Net's random split beyond the file
    assert sorted(dataset_2d.folder.rglob("*")) == before

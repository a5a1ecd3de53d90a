from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_sikd.stress.shifts import SHIFTS, Shift, ranges_of, shifted
from tests.figures.conftest import load
from tests.helpers import make_case, make_preprocessed_dataset

BY_NAME = {shift.name: shift for shift in SHIFTS}
EACH = pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.name)


def make(channels: int = 2, dim: int = 2) -> tuple[np.ndarray, np.ndarray]:
    image, label = make_case(dim, channels=channels)
    return image, label.astype(np.int16)


def apply(name: str, strength: float, image: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
    label = np.zeros(image.shape[1:], np.int16) if label is None else label
    return shifted(image, label, BY_NAME[name], strength, "case")


def ramp(size: int = 101) -> np.ndarray:
    """One row from 1 to 2, so that nothing is empty space."""
    return np.linspace(1, 2, size, dtype=np.float32).reshape(1, 1, 1, size)


@EACH
@pytest.mark.parametrize("dim", [2, 3])
class TestEach:
    def test_changes_more_with_strength(self, shift: Shift, dim: int) -> None:
        image, label = make(dim=dim)
        changes = [np.abs(shifted(image, label, shift, s, "case") - image).mean() for s in (0.0, 0.1, 0.5, 1.0)]
        assert changes[0] == 0
        assert changes == sorted(changes)
        assert changes[1] < 0.75 * changes[3]
        assert changes[3] > 2

    def test_is_repeatable_and_no_case_is_like_another(self, shift: Shift, dim: int) -> None:
        image, label = make(dim=dim)
        first, again, other = (shifted(image, label, shift, 0.7, case) for case in ("a", "a", "b"))
        assert np.array_equal(first, again)
        random = shift.name in ("remapping", "gamma", "class_levels", "bias_field", "noise")
        assert random or np.array_equal(first, other)
        # Gamma has two directions, which two cases may share.
        assert not random or shift.name == "gamma" or not np.array_equal(first, other)

    def test_empty_space_stays_empty_and_the_rest_finite(self, shift: Shift, dim: int) -> None:
        image, label = make(dim=dim)
        before = image.copy()
        result = shifted(image, label, shift, 1.0, "case")
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
        assert (result[image == 0] == 0).all()
        assert np.array_equal(image, before)

    def test_an_empty_or_flat_image(self, shift: Shift, dim: int) -> None:
        label = np.zeros((3, 8, 9), np.int16)
        assert not shifted(np.zeros((1, 3, 8, 9), np.float32), label, shift, 1.0, "case").any()
        assert np.isfinite(shifted(np.full((1, 3, 8, 9), 7, np.float32), label, shift, 1.0, "case")).all()


def test_inversion_turns_the_order_around() -> None:
    image = ramp()
    assert (np.diff(apply("inversion", 1.0, image)).ravel()[2:-2] < 0).all()  # but for half a percent of outliers
    half = np.diff(apply("inversion", 0.5, image)).ravel()
    assert (half[:45] > 0).all()
    assert (half[55:] < 0).all()


def test_gamma_keeps_the_order() -> None:
    assert (np.diff(apply("gamma", 1.0, ramp())) >= 0).all()


def test_remapping_is_one_curve_of_six_points() -> None:
    image = np.concatenate([ramp(), ramp()[..., ::-1]], axis=2)
    full, half = (apply("remapping", strength, image)[0, 0] for strength in (1.0, 0.5))
    np.testing.assert_allclose(full[0], full[1, ::-1], atol=1e-5)  # of the intensity alone
    np.testing.assert_allclose(half, (full + image[0, 0]) / 2, atol=1e-5)  # halfway
    bends = np.abs(np.diff(full[0, 3:-3], 2)) > 1e-4
    assert 2 <= np.flatnonzero(bends).size <= 8  # straight but for four points, each between two pixels
    assert (np.diff(full[0]) < -1e-4).any()  # not in order


def test_a_bias_field_is_smooth_and_has_its_strength() -> None:
    image = np.random.default_rng(0).uniform(0.1, 0.3, (1, 4, 40, 40)).astype(np.float32)
    label, bias = np.zeros((4, 40, 40), np.int16), BY_NAME["bias_field"]
    full, half = (
        np.log(shifted(image, label, bias, strength, "case", [(0.0, 1.0)]) / image)[0] for strength in (1.0, 0.5)
    )
    assert np.exp(np.abs(full).max()) == pytest.approx(np.exp(1.2), rel=0.01)  # 3.3, or 0.3
    assert max(np.abs(np.diff(full, axis=axis)).max() for axis in (1, 2)) < 0.2  # between two pixels
    np.testing.assert_allclose(half, full / 2, atol=1e-3)


def test_classes_move_and_keep_their_texture() -> None:
    image, label = np.random.default_rng(0).normal(10, 1, (1, 2, 40, 40)).astype(np.float32), np.zeros((2, 40, 40))
    label[:, 20:] = 1
    moved = apply("class_levels", 1.0, image, label.astype(np.int16)) - image
    for inner in (moved[:, :, :19], moved[:, :, 21:]):
        assert np.ptp(inner) < 1e-4
    assert abs(moved[0, 0, 0, 0] - moved[0, 0, -1, 0]) > 0.1


def test_noise_has_its_strength() -> None:
    image = np.tile(ramp(), (1, 4, 50, 1))
    assert (apply("noise", 0.5, image) - image).std() == pytest.approx(0.1, rel=0.1)  # of a range of nearly 1


def test_blur_and_resolution_take_away_detail_in_plane_only() -> None:
    image = np.random.default_rng(0).normal(10, 1, (1, 6, 48, 48)).astype(np.float32)
    for name in ("blur", "resolution"):
        result = apply(name, 1.0, image)
        assert result[0].std(axis=(1, 2)).max() < 0.3 * image[0].std(axis=(1, 2)).min()
        assert abs(result.mean() - image.mean()) < 0.05
        # A slice does not depend on its neighbours.
        image_alone = image.copy()
        image_alone[:, 1:] = image[:, :1]
        assert np.corrcoef(apply(name, 1.0, image_alone)[0, 0].ravel(), result[0, 0].ravel())[0, 1] > 0.999


def test_ghosts_repeat_the_image_along_the_lines() -> None:
    image = np.full((1, 1, 64, 64), 1.0, np.float32)
    image[:, :, 28:36, 28:36] = 10
    ghosts = apply("ghosting", 1.0, image) - image
    assert ghosts[0, 0, 8:16, 28:36].mean() < -0.3 or ghosts[0, 0, 12:20, 28:36].mean() < -0.3
    assert np.abs(ghosts[0, 0, :, :20]).max() < 0.2


@EACH
def test_known_ranges_hold_the_shift(shift: Shift) -> None:
    body = np.random.default_rng(0).normal(50, 30, (1, 4, 40, 40)).astype(np.float32)
    body[..., :20] = -1000  # air
    window = (-17.0, 201.0)
    inside = np.clip(body, *window)
    for strength in (1 / 3, 1.0):
        result = shifted(body, (body[0] > -500).astype(np.int16), shift, strength, "case", [window])
        assert result.min() >= window[0]
        assert result.max() <= window[1]
        assert np.abs(result - inside).mean() > 0.5
        visible = result[..., 20:]
        assert ((visible > window[0] + 1e-3) & (visible < window[1] - 1e-3)).mean() > 0.3


def test_ranges_are_those_of_the_normalisation(nnunet_folders: Path) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=2, channels=3)
    file = dataset.folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    schemes = ["ZScoreNormalization", "CTNormalization", "RGBTo01Normalization"]
    plans["configurations"]["2d"]["normalization_schemes"] = schemes
    file.write_text(json.dumps(plans))
    assert ranges_of(load(dataset)) == [None, (110.0, 390.0), (0.0, 255.0)]

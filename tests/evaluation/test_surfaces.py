"""Surface metrics of shapes whose answers are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from nnunetv2_sikd.evaluation.surfaces import SurfaceMetrics, measure_surfaces
from tests.evaluation.helpers import ball, blobs, box

ROOT2 = math.sqrt(2)


def measure(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    tolerance: float = 1.0,
    *,
    per_slice: bool = False,
    missing: float = 100.0,
) -> SurfaceMetrics:
    return measure_surfaces(reference, prediction, spacing, tolerance=tolerance, per_slice=per_slice, missing=missing)


@pytest.mark.parametrize("per_slice", [False, True])
def test_equal_masks(per_slice: bool) -> None:
    mask = box((4, 9, 9), (1, 3), (2, 7), (3, 8))
    assert measure(mask, mask, (5, 1, 2), 0.0, per_slice=per_slice) == SurfaceMetrics(0, 0, 0, 1)


@pytest.mark.parametrize(("axis", "expected"), [(0, 2 * 5.0), (1, 2 * 1.5), (2, 2 * 0.7)])
def test_shifted_box_is_off_by_the_shift_in_mm(axis: int, expected: float) -> None:
    shape = (40, 40, 40)
    reference = box(shape, (10, 30), (10, 30), (10, 30))
    prediction = np.roll(reference, 2, axis)
    found = measure(reference, prediction, (5.0, 1.5, 0.7), expected)
    assert found.hausdorff == pytest.approx(expected)
    assert found.surface_dice == 1
    assert measure(reference, prediction, (5.0, 1.5, 0.7), expected * 0.99).surface_dice < 1
    # The far faces of a cube of spacings 5, 1.5, 0.7 make up more than 5 % of the surface, whichever they are.
    assert found.hausdorff95 == pytest.approx(expected)


@pytest.mark.parametrize(("size", "hausdorff95"), [(8, ROOT2), (24, 1.0)])
def test_square_around_a_square(size: int, hausdorff95: float) -> None:
    """The outer contour is one pixel away at the sides and a diagonal at its four corners, each cut to half of one."""
    outer = box((1, size + 4, size + 4), (0, 1), (2, size + 2), (2, size + 2))
    inner = box((1, size + 4, size + 4), (0, 1), (3, size + 1), (3, size + 1))
    found = measure(outer, inner, per_slice=True)
    outer_sides, inner_sides, corners = 4 * (size - 1), 4 * (size - 3), 4 * ROOT2 / 2
    total = outer_sides + inner_sides + 2 * corners
    assert found.hausdorff == pytest.approx(ROOT2)
    # Corners are 9 % of the small contour and 3 % of the large one.
    assert found.hausdorff95 == pytest.approx(hausdorff95)
    assert found.average_surface_distance == pytest.approx((total + corners * (ROOT2 - 1)) / total)
    assert found.surface_dice == pytest.approx(1 - corners / total)


def test_balls_of_one_centre() -> None:
    spacing = (2.0, 1.0, 1.0)
    shape = (30, 60, 60)
    found = measure(ball(shape, 24, spacing), ball(shape, 18, spacing), spacing, 8.0)
    voxel = math.hypot(*spacing)
    for distance in (found.hausdorff, found.hausdorff95, found.average_surface_distance):
        assert distance == pytest.approx(6, abs=voxel)
    # All corners of voxels that the surface cuts count as its points, and the nearest one is on this side of it.
    assert 5 < found.average_surface_distance < 6
    assert found.surface_dice == pytest.approx(1)
    assert measure(ball(shape, 24, spacing), ball(shape, 18, spacing), spacing, 3.0).surface_dice == 0


def test_single_voxels_are_compared_corner_by_corner() -> None:
    left, right = box((1, 1, 9), (0, 1), (0, 1), (0, 1)), box((1, 1, 9), (0, 1), (0, 1), (5, 6))
    found = measure(left, right, (3.0, 2.0, 0.5))
    # Eight corners each: four are 5 voxels from the other's nearest corners less one, four are 5 away.
    assert found.hausdorff == pytest.approx(5 * 0.5)
    assert found.average_surface_distance == pytest.approx(4.5 * 0.5)


def test_slices_see_nothing_of_their_neighbours() -> None:
    # The prediction is the reference of the next slice: close by in 3D, 6 pixels off within each slice.
    reference = np.zeros((2, 12, 24), dtype=bool)
    reference[0, 3:9, 2:8] = reference[1, 3:9, 8:14] = True
    prediction = reference[::-1].copy()
    assert measure(reference, prediction, (1, 1, 1)).hausdorff < 2
    assert measure(reference, prediction, (1, 1, 1), per_slice=True).hausdorff == 6


@pytest.mark.parametrize("missed", ["prediction", "reference"])
def test_slice_with_one_contour(missed: str) -> None:
    there = box((3, 12, 12), (0, 2), (2, 8), (2, 8))
    part = box((3, 12, 12), (0, 1), (2, 8), (2, 8))
    pair = (there, part) if missed == "prediction" else (part, there)
    found = measure(*pair, per_slice=True, missing=50.0)
    # Three contours of one length, of which one has no counterpart.
    assert found.hausdorff == found.hausdorff95 == 50
    assert found.average_surface_distance == pytest.approx(50 / 3)
    assert found.surface_dice == pytest.approx(2 / 3)
    assert found.unmatched_slices == 1
    excluded = measure(*pair, per_slice=True, missing=math.nan)
    assert excluded.hausdorff == excluded.hausdorff95 == excluded.average_surface_distance == 0
    assert excluded.surface_dice == pytest.approx(2 / 3)
    assert excluded.unmatched_slices == 1


def test_no_slice_with_both_contours() -> None:
    first, second = box((2, 8, 8), (0, 1), (2, 5), (2, 5)), box((2, 8, 8), (1, 2), (2, 5), (2, 5))
    found = measure(first, second, per_slice=True, missing=30.0)
    assert (found.hausdorff, found.average_surface_distance) == (30, pytest.approx(30))
    assert (found.surface_dice, found.unmatched_slices) == (0, 2)
    excluded = measure(first, second, per_slice=True, missing=math.nan)
    assert math.isnan(excluded.hausdorff)
    assert math.isnan(excluded.average_surface_distance)
    assert (excluded.surface_dice, excluded.unmatched_slices) == (0, 2)


@settings(max_examples=25, deadline=None)
@given(
    seeds=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)),
    factor=st.floats(0.1, 10),
    per_slice=st.booleans(),
)
def test_symmetric_scaled_and_bound_to_no_frame(seeds: tuple[int, int], factor: float, per_slice: bool) -> None:
    left, right = (blobs(seed, (4, 12, 10)) for seed in seeds)
    if not (left.any() and right.any()):
        return
    spacing = (3.0, 1.0, 1.5)

    def numbers(*arguments: object, tolerance: float = 1.2, missing: float = 40.0) -> np.ndarray:
        found = measure(*arguments, tolerance, per_slice=per_slice, missing=missing)
        return np.array([found.hausdorff, found.hausdorff95, found.average_surface_distance, found.surface_dice])

    expected = numbers(left, right, spacing)
    assert_allclose(numbers(right, left, spacing), expected)
    padded = (np.pad(mask, ((2, 1), (0, 3), (4, 4))) for mask in (left, right))
    assert_allclose(numbers(*padded, spacing), expected)
    # In other units.
    scaled = tuple(step * factor for step in spacing)
    rescaled = numbers(left, right, scaled, tolerance=1.2 * factor, missing=40 * factor)
    assert_allclose(rescaled / [factor, factor, factor, 1], expected)
    assert expected[2] <= expected[0]
    assert expected[1] <= expected[0]

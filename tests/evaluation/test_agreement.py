"""The same numbers as nnU-Net, MONAI and scipy, where they define the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder, load_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial.distance import directed_hausdorff

from nnunetv2_sikd.evaluation import evaluate_folder
from nnunetv2_sikd.evaluation.surfaces import SurfaceMetrics, measure_surfaces
from tests.evaluation.helpers import blobs, box, make_folders

SPACING = (4.0, 1.5, 1.5)


def measure(left: np.ndarray, right: np.ndarray, tolerance: float = 2.0) -> SurfaceMetrics:
    return measure_surfaces(left, right, SPACING, tolerance=tolerance, per_slice=False, missing=math.nan)


def one_hot(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([~mask, mask])[None])


def corners(mask: np.ndarray) -> np.ndarray:
    """Corners of voxels that have both mask and background around them, in mm."""
    around = sliding_window_view(np.pad(mask, 1), (2, 2, 2)).sum(axis=(3, 4, 5))
    return np.argwhere((around > 0) & (around < 8)) * SPACING


@pytest.mark.parametrize("seed", range(1, 6))
def test_hausdorff_distance_is_scipys(seed: int) -> None:
    left, right = blobs(seed), blobs(seed + 100)
    points = corners(left), corners(right)
    expected = max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    assert measure(left, right).hausdorff == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0])
def test_surface_dice_is_monais(seed: int, tolerance: float) -> None:
    left, right = blobs(seed), blobs(seed + 100)
    expected = compute_surface_dice(
        one_hot(right), one_hot(left), [tolerance], spacing=SPACING, use_subvoxels=True
    ).item()
    assert 0 < expected < 1
    assert measure(left, right, tolerance).surface_dice == pytest.approx(expected, abs=1e-5)


def test_boxes_are_as_far_apart_as_monai_finds_them() -> None:
    left, right = box((20, 40, 40), (5, 12), (8, 30), (8, 30)), box((20, 40, 40), (7, 14), (8, 30), (10, 32))
    expected = compute_hausdorff_distance(one_hot(right), one_hot(left), spacing=SPACING).item()
    assert expected == pytest.approx(math.hypot(2 * 4.0, 2 * 1.5), rel=1e-6)
    assert measure(left, right).hausdorff == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(1, 6))
def test_distances_are_monais_but_for_what_a_surface_point_is(seed: int) -> None:
    """MONAI measures between the centres of voxels at the edge, surface-distance between their corners."""
    left, right = blobs(seed), blobs(seed + 100)
    found, pair, voxel = measure(left, right), (one_hot(right), one_hot(left)), math.hypot(*SPACING)
    # Each corner is half a diagonal from a centre, so the largest distance differs by a diagonal at most.
    expected = compute_hausdorff_distance(*pair, spacing=SPACING).item()
    assert found.hausdorff == pytest.approx(expected, abs=voxel)
    expected = compute_hausdorff_distance(*pair, percentile=95, spacing=SPACING).item()
    assert found.hausdorff95 == pytest.approx(expected, abs=voxel)
    expected = compute_average_surface_distance(*pair, symmetric=True, spacing=SPACING).item()
    assert found.average_surface_distance == pytest.approx(expected, abs=voxel / 2)


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_summary_is_nnunets(kind: str, tmp_path: Path) -> None:
    labels = {
        "labels": {"background": 0, "shell": 1, "core": 2},
        "regions": {"background": 0, "whole": [1, 2], "core": [2]},
        "ignore": {"background": 0, "shell": 1, "core": 2, "ignore": 3},
    }[kind]
    cases = {f"case_{i}": tuple(blobs(s).astype(np.uint8) + blobs(s + 9) for s in (i, i + 50)) for i in range(1, 4)}
    empty = np.zeros_like(cases["case_1"][0])
    cases["case_4"] = (empty, (cases["case_1"][1] > 1).astype(np.uint8))  # no 2 in either, 1 only predicted
    if kind == "ignore":
        for reference, _ in cases.values():
            reference[:, :6] = 3
    references, predictions = make_folders(
        tmp_path, cases, reference_labels=labels, prediction_labels=labels, spacing=SPACING
    )
    regions = [(1, 2), (2,)] if kind == "regions" else [1, 2]
    stock = tmp_path / "stock.json"
    compute_metrics_on_folder(
        str(references),
        str(predictions),
        str(stock),
        SimpleITKIO(),
        ".nii.gz",
        regions,
        3 if kind == "ignore" else None,
        num_processes=1,
    )
    evaluate_folder(references, predictions, output=tmp_path / "ours")
    expected, found = load_summary_json(str(stock)), load_summary_json(str(tmp_path / "ours" / "summary.json"))
    assert set(json.loads(stock.read_text())) == set(found) - {"evaluation"}
    assert_contains(found["mean"], expected["mean"])
    assert_contains(found["foreground_mean"], expected["foreground_mean"])
    for ours, stocks in zip(found["metric_per_case"], expected["metric_per_case"], strict=True):
        assert_contains(ours, stocks)


def assert_contains(found: dict, expected: dict) -> None:
    """All of nnU-Net's keys with the very same values; others may be there too."""
    for key, value in expected.items():
        if isinstance(value, dict):
            assert_contains(found[key], value)
        else:
            assert found[key] == value or (math.isnan(value) and math.isnan(found[key])), key

"""Whole evaluations: what is written, and each policy."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation import EmptyMaskPolicy, evaluate_folder, folder
from tests.evaluation.helpers import box, die, make_folders, write_label

SHAPE = (4, 12, 12)
SQUARE = box(SHAPE, (1, 3), (2, 8), (2, 8)).astype(np.uint8)
NOTHING = np.zeros(SHAPE, dtype=np.uint8)
COLUMNS = (
    "case,label,empty,unit,dice,iou,hausdorff,hausdorff95,average_surface_distance,surface_dice,"
    "volume_reference,volume_prediction"
)
ONE = {"background": 0, "LV": 1}


def rows(file: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.csv``, numbers as numbers."""
    assert file.read_text().splitlines()[0] == COLUMNS
    with file.open(newline="") as stream:
        texts = ("case", "label", "empty", "unit")
        return [{k: v if k in texts else float(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def test_row_of_a_known_case(tmp_path: Path) -> None:
    shifted = np.roll(SQUARE, 2, axis=2)
    references, predictions = make_folders(
        tmp_path,
        {"a": (SQUARE, shifted * 3)},
        reference_labels=ONE,
        prediction_labels={"background": 0, "RV": 1, "Myo": 2, "LV": 3},
    )
    evaluation = evaluate_folder(references, predictions, tolerance=2.0)
    (row,) = rows(predictions / "metrics.csv")
    volume = 2 * 6 * 6 * 5.0 / 1000
    assert row | {"average_surface_distance": 0} == {
        "case": "a",
        "label": "LV",
        "empty": "none",
        "unit": "mm",
        "dice": pytest.approx(2 * 48 / (72 + 72)),
        "iou": pytest.approx(48 / (72 + 24)),
        "hausdorff": 2.0,
        "hausdorff95": 2.0,
        "average_surface_distance": 0,
        "surface_dice": 1.0,
        "volume_reference": pytest.approx(volume),
        "volume_prediction": pytest.approx(volume),
    }
    assert 0 < row["average_surface_distance"] < 2
    assert evaluation.matching.only_predicted == ("RV", "Myo")
    assert sorted(file.name for file in predictions.iterdir()) == [
        "a.nii.gz",
        "dataset.json",
        "metrics.csv",
        "summary.json",
    ]
    summary = load_summary_json(str(predictions / "summary.json"))
    assert summary["mean"][1]["hausdorff95"] == 2.0
    assert summary["evaluation"]["labels_left_out"]["only_predicted"] == ["RV", "Myo"]


EMPTY_CASES = {
    "both": (NOTHING, NOTHING),
    "none": (SQUARE, SQUARE),
    "prediction": (SQUARE, NOTHING),
    "reference": (NOTHING, SQUARE),
}
DIAGONAL = math.hypot(4 * 5.0, 12, 12)


@pytest.mark.parametrize("both", ["exclude", "perfect"])
@pytest.mark.parametrize("one", ["diagonal", "exclude"])
@pytest.mark.parametrize("per_slice", [False, True])
def test_empty_masks(both: Any, one: Any, per_slice: bool, tmp_path: Path) -> None:
    references, predictions = make_folders(tmp_path, EMPTY_CASES, reference_labels=ONE, prediction_labels=ONE)
    policy = EmptyMaskPolicy(both=both, one=one)
    evaluation = evaluate_folder(references, predictions, policy=policy, per_slice=per_slice)
    found = {row["case"]: row for row in rows(predictions / "metrics.csv")}
    assert {case: row["empty"] for case, row in found.items()} == {case: case for case in EMPTY_CASES}

    diagonal = math.hypot(12, 12) if per_slice else DIAGONAL
    missed = diagonal if one == "diagonal" else math.nan
    nothing = (1.0, 0.0) if both == "perfect" else (math.nan, math.nan)
    for case, (overlap, distance) in {
        "none": (1, 0),
        "prediction": (0, missed),
        "reference": (0, missed),
        "both": nothing,
    }.items():
        for name in ("dice", "iou", "surface_dice"):
            assert found[case][name] == pytest.approx(overlap, nan_ok=True), (case, name)
        for name in ("hausdorff", "hausdorff95", "average_surface_distance"):
            assert found[case][name] == pytest.approx(distance, nan_ok=True), (case, name)

    counts = evaluation.summary["evaluation"]["counts"]["LV"]
    assert counts["empty"] == {"none": 1, "reference": 1, "prediction": 1, "both": 1}
    assert counts["in_mean"]["dice"] == (4 if both == "perfect" else 3)
    assert counts["in_mean"]["hausdorff"] == 1 + 2 * (one == "diagonal") + (both == "perfect")
    assert counts["unmatched_slices"] == (4 if per_slice else 0)
    mean = evaluation.summary["mean"][1]
    distances = [0.0] + [diagonal] * 2 * (one == "diagonal") + [0.0] * (both == "perfect")
    assert mean["hausdorff95"] == pytest.approx(np.mean(distances))
    assert mean["Dice"] == pytest.approx(2 / 4 if both == "perfect" else 1 / 3)


def test_label_that_is_nowhere_has_no_mean(tmp_path: Path) -> None:
    references, predictions = make_folders(tmp_path, {"a": (SQUARE, SQUARE)})
    summary = evaluate_folder(references, predictions).summary
    assert math.isnan(summary["mean"][2]["Dice"])
    assert summary["evaluation"]["counts"]["core"]["in_mean"]["hausdorff"] == 0


def test_region_against_label(tmp_path: Path) -> None:
    reference = SQUARE.copy()
    reference[1] *= 2
    references, predictions = make_folders(
        tmp_path,
        {"a": (reference, SQUARE)},
        reference_labels={"background": 0, "whole": [1, 2], "core": [2]},
        prediction_labels={"background": 0, "whole": 1},
    )
    evaluate_folder(references, predictions)
    (row,) = rows(predictions / "metrics.csv")
    assert (row["label"], row["dice"], row["hausdorff"]) == ("whole", 1.0, 0.0)
    assert list(load_summary_json(str(predictions / "summary.json"))["mean"]) == [(1, 2)]


def test_ignored_voxels_take_no_part(tmp_path: Path) -> None:
    labels = {**ONE, "ignore": 2}
    reference, prediction = SQUARE.copy(), SQUARE.copy()
    reference[:, :, 6:] = 2  # part of the square and all beyond it
    prediction[:, :, 6:] = 1  # far off, and where nobody knows
    references, predictions = make_folders(
        tmp_path, {"a": (reference, prediction)}, reference_labels=labels, prediction_labels=labels
    )
    evaluate_folder(references, predictions)
    (row,) = rows(predictions / "metrics.csv")
    assert (row["dice"], row["hausdorff"], row["surface_dice"]) == (1.0, 0.0, 1.0)
    assert row["volume_reference"] == row["volume_prediction"] == pytest.approx(2 * 6 * 4 * 5 / 1000)


def test_png_is_measured_in_pixels(tmp_path: Path) -> None:
    image = box((12, 30), (2, 8), (2, 8)).astype(np.uint8)
    references, predictions = make_folders(
        tmp_path,
        {"a": (image, np.roll(image, 3, axis=1)), "b": (image, image * 0)},
        reference_labels=ONE,
        prediction_labels=ONE,
        ending=".png",
    )
    evaluate_folder(references, predictions)
    shifted, missed = rows(predictions / "metrics.csv")
    assert (shifted["unit"], shifted["hausdorff"], shifted["volume_reference"]) == ("px", 3.0, 36.0)
    # In 2D: in 3D, the overlap of the two would be a surface at distance 0.
    assert shifted["average_surface_distance"] > 1
    assert missed["hausdorff"] == pytest.approx(math.hypot(12, 30))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volume_of_one_slice_is_2d(axis: int, tmp_path: Path) -> None:
    image = box((12, 30), (2, 8), (2, 8)).astype(np.uint8)
    pair = tuple(np.expand_dims(values, axis) for values in (image, np.roll(image, 3, axis=1)))
    spacing = [2.0, 2.0]
    spacing.insert(axis, 7.0)
    references, predictions = make_folders(
        tmp_path, {"a": pair}, reference_labels=ONE, prediction_labels=ONE, spacing=tuple(spacing)
    )
    evaluate_folder(references, predictions)
    (row,) = rows(predictions / "metrics.csv")
    assert row["hausdorff"] == 6.0
    assert row["average_surface_distance"] > 2
    assert row["volume_reference"] == pytest.approx(36 * 4 * 7 / 1000)


def test_slices_of_a_stack(tmp_path: Path) -> None:
    reference = np.zeros((2, 12, 24), dtype=np.uint8)
    reference[0, 3:9, 2:8] = reference[1, 3:9, 8:14] = 1
    references, predictions = make_folders(
        tmp_path, {"a": (reference, reference[::-1])}, reference_labels=ONE, prediction_labels=ONE, spacing=(1, 1, 1)
    )
    hausdorff = [
        evaluate_folder(references, predictions, per_slice=per_slice).cases[0].labels[0].values["hausdorff"]
        for per_slice in (False, True)
    ]
    assert hausdorff[0] < 2
    assert hausdorff[1] == 6


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {f"case_{i}": (SQUARE, np.roll(SQUARE, i % 3, axis=1)) for i in range(5)}
    references, predictions = make_folders(tmp_path, cases)
    evaluate_folder(references, predictions, num_processes=1, output=tmp_path / "alone")
    monkeypatch.setattr(folder, "_WORTH_WORKERS", -1.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    evaluate_folder(references, predictions, num_processes=2, output=tmp_path / "together")
    for name in ("summary.json", "metrics.csv"):
        assert (tmp_path / "alone" / name).read_text() == (tmp_path / "together" / name).read_text()


def test_killed_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references, predictions = make_folders(tmp_path, {f"case_{i}": (SQUARE, SQUARE) for i in range(3)})
    pool = folder._results_of_workers

    def killed(tasks: Any, workers: int) -> Any:
        monkeypatch.setattr(folder, "evaluate_case", die)
        return pool(tasks, workers)

    monkeypatch.setattr(folder, "_WORTH_WORKERS", -1.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(folder, "_results_of_workers", killed)
    with pytest.raises(SIKDError, match="a worker process died"):
        evaluate_folder(references, predictions, num_processes=2)
    assert not (predictions / "summary.json").exists()


def test_missing_and_extra_predictions(tmp_path: Path) -> None:
    references, predictions = make_folders(tmp_path, dict.fromkeys("abcd", (SQUARE, SQUARE)))
    (predictions / "b.nii.gz").unlink()
    (references / "c.nii.gz").unlink()
    with pytest.raises(SIKDError, match=r"has no prediction of b \(1 of 3 cases\); --chill"):
        evaluate_folder(references, predictions)
    evaluation = evaluate_folder(references, predictions, chill=True)
    assert evaluation.files.cases == ("a", "d")
    told = json.loads((predictions / "summary.json").read_text())["evaluation"]
    assert (told["missing_predictions"], told["predictions_without_reference"]) == (["b"], ["c"])


def test_all_misfits_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    references, predictions = make_folders(tmp_path, dict.fromkeys("abc", (SQUARE, SQUARE)))
    write_label(predictions / "a.nii.gz", SQUARE[:, :5])
    write_label(predictions / "c.nii.gz", SQUARE, (5.0, 1.0, 1.1))
    with pytest.raises(SIKDError) as told:
        evaluate_folder(references, predictions, output=tmp_path / "results")
    assert "a.nii.gz: the prediction has shape (4, 5, 12) where the reference has (4, 12, 12)" in str(told.value)
    assert "c.nii.gz: the prediction has spacing (1.1, 1.0, 5.0) where" in str(told.value)
    assert "b.nii.gz" not in str(told.value)
    assert not (tmp_path / "results").exists()

"""The command: what it prints, and one clear line for whatever a user can get wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_sikd.commands.main import main
from tests.evaluation.helpers import box, make_folders, write_json, write_label

ACDC = {"background": 0, "RV": 1, "Myo": 2, "LVC": 3}
SUNNYBROOK = {"background": 0, "LV": 1}
SHAPE = (3, 10, 10)
SQUARE = box(SHAPE, (0, 2), (2, 8), (2, 8)).astype(np.uint8)

Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Two cases of Sunnybrook, predicted by a network of ACDC."""
    return make_folders(
        tmp_path,
        {"a": (SQUARE, SQUARE * 3), "b": (SQUARE, np.roll(SQUARE, 1, axis=1) * 3)},
        reference_labels=SUNNYBROOK,
        prediction_labels=ACDC,
    )


def evaluate(folders: Folders, *arguments: str | Path) -> int:
    return main(["evaluate", *map(str, folders), "-np", "1", *map(str, arguments)])


def told(capsys: pytest.CaptureFixture[str], folders: Folders, *arguments: str | Path) -> str:
    """The one line that a failing evaluation prints on standard error, beside the progress bar."""
    capsys.readouterr()
    assert evaluate(folders, *arguments) == 1
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert not list(folders[1].glob("*metrics.csv"))
    assert not list(folders[1].glob("*summary.json"))
    return errors[0]


def test_means_and_everything_left_out_are_printed(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    references, predictions = folders
    write_label(predictions / "extra.nii.gz", SQUARE)
    write_label(references / "missed.nii.gz", SQUARE)
    write_label(predictions / "missed.nii.gz", SQUARE * 0)
    write_label(references / "not_predicted.nii.gz", SQUARE)
    output = predictions.parent / "results"
    assert evaluate(folders, "--labels", "LVC=LV", "--slices", "--tolerance", "1", "--chill", "-o", output) == 0
    printed = capsys.readouterr().out
    (row,) = [line for line in printed.splitlines() if line.startswith("| LV")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    dice = (1 + 2 * 30 / 72 + 0) / 3
    assert cells[:2] == ["LV", f"{dice:.3f}"]
    assert cells[7:] == ["3", "0", "1", "0"]
    for line in (
        "Left out, the references do not annotate: RV, Myo.",
        "Without prediction, in no mean: not_predicted (1).",
        "Without reference, ignored: extra (1).",
        "One mask empty: 1 of the values per case and label; Dice 0, distances are the diagonal.",
        "Slices in which one mask is empty: 2; a contour without counterpart: its distance is the slice's diagonal.",
        f"Written: {output / 'summary.json'} and metrics.csv",
    ):
        assert line in printed.splitlines()
    assert sorted(file.name for file in output.iterdir()) == ["metrics.csv", "summary.json"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("LVC", "is not of the form PREDICTED=REFERENCE"),
        ("lvc=LV", "there is no predicted label 'lvc', did you mean 'LVC'?"),
        ("LVC=LVBP", "there is no reference label 'LVBP'"),
    ],
)
def test_bad_label_map(entry: str, expected: str, folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in told(capsys, folders, "--labels", entry)


def test_nothing_in_common(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert "(RV, Myo, LVC)" in told(capsys, folders)


def other_ending(references: Path, predictions: Path) -> None:
    write_json(references.parent / "dataset.json", SUNNYBROOK, ending=".nrrd")


def other_channels(references: Path, predictions: Path) -> None:
    write_json(references.parent / "dataset.json", SUNNYBROOK, channels=2)


def without_description(references: Path, predictions: Path) -> None:
    (predictions / "dataset.json").unlink()


def without_reference_description(references: Path, predictions: Path) -> None:
    (references.parent / "dataset.json").unlink()


def broken_description(references: Path, predictions: Path) -> None:
    (predictions / "dataset.json").write_text("{")


def foreign_description(references: Path, predictions: Path) -> None:
    (predictions / "dataset.json").write_text('{"labels": []}')


def no_references(references: Path, predictions: Path) -> None:
    for file in references.iterdir():
        file.unlink()


def no_reference_folder(references: Path, predictions: Path) -> None:
    no_references(references, predictions)
    references.rmdir()


def no_predictions(references: Path, predictions: Path) -> None:
    for file in predictions.glob("*.nii.gz"):
        file.unlink()


def missing_prediction(references: Path, predictions: Path) -> None:
    (predictions / "b.nii.gz").unlink()


def prediction_of_other_format(references: Path, predictions: Path) -> None:
    (predictions / "b.nii.gz").rename(predictions / "b.nii")


def reference_of_other_format(references: Path, predictions: Path) -> None:
    (references / "b.nii.gz").rename(references / "b.mha")


def other_names(references: Path, predictions: Path) -> None:
    for file in references.glob("*.nii.gz"):
        file.rename(references / f"other_{file.name}")


def other_values(references: Path, predictions: Path) -> None:
    write_label(predictions / "b.nii.gz", SQUARE * 7)


def truncated_prediction(references: Path, predictions: Path) -> None:
    # ITK reads it without a word, and with zeros or worse for what is missing.
    file = predictions / "b.nii.gz"
    file.write_bytes(file.read_bytes()[:-20])


def truncated_reference(references: Path, predictions: Path) -> None:
    (references / "a.nii.gz").write_bytes(b"")


def other_shape(references: Path, predictions: Path) -> None:
    write_label(predictions / "b.nii.gz", SQUARE[:2])


def other_spacing(references: Path, predictions: Path) -> None:
    write_label(predictions / "b.nii.gz", SQUARE, (5.0, 1.0, 1.01))


def other_origin(references: Path, predictions: Path) -> None:
    write_label(predictions / "b.nii.gz", SQUARE, origin=(0.0, 0.5, 0.0))


def other_direction(references: Path, predictions: Path) -> None:
    write_label(predictions / "b.nii.gz", SQUARE, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (other_ending, "dataset.json has file ending .nii.gz and"),
        (other_channels, "dataset.json has 1 channel(s) and"),
        (without_description, "predictions/dataset.json: not there; name the dataset.json with -djfile"),
        (without_reference_description, "target/dataset.json: not there; name the dataset.json with -gt_djfile"),
        (broken_description, "predictions/dataset.json: not valid JSON"),
        (foreign_description, "predictions/dataset.json: has no valid 'labels'"),
        (no_references, "labelsTs: holds no references named <case>.nii.gz"),
        (no_reference_folder, "labelsTs: no such folder of references"),
        (no_predictions, "predictions: holds no predictions named <case>.nii.gz"),
        (missing_prediction, "has no prediction of b (1 of 2 cases); --chill evaluates the others"),
        (prediction_of_other_format, "predictions/b.nii: is of another format than the .nii.gz"),
        (reference_of_other_format, "labelsTs/b.mha: is of another format than the .nii.gz"),
        (other_names, "(other_a, other_b)"),
        (other_values, "b.nii.gz: has the value 7, which"),
        (truncated_prediction, "b.nii.gz: cut short, or no NIfTI image"),
        (truncated_reference, "a.nii.gz: is empty"),
        (other_shape, "b.nii.gz: the prediction has shape (2, 10, 10) where the reference has (3, 10, 10)"),
        (
            other_spacing,
            "b.nii.gz: the prediction has spacing (1.01, 1.0, 5.0) where the reference has (1.0, 1.0, 5.0)",
        ),
        (other_origin, "b.nii.gz: the prediction has origin (0.0, 0.5, 0.0) where the reference has (0.0, 0.0, 0.0)"),
        (other_direction, "b.nii.gz: the prediction has direction (-1.0, "),
    ],
)
def test_bad_folders(
    spoil: Callable[[Path, Path], None], expected: str, folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(*folders)
    assert expected in told(capsys, folders, "--labels", "LVC=LV")


def test_bad_options(folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label_map = ("--labels", "LVC=LV")
    assert "nowhere.json: no such file (-djfile)" in told(capsys, folders, *label_map, "-djfile", "nowhere.json")
    assert "-o takes a folder here" in told(capsys, folders, *label_map, "-o", tmp_path / "summary.json")
    same = (folders[0], folders[0])
    assert "both as references and as predictions" in told(capsys, same, "-djfile", folders[0].parent / "dataset.json")
    with pytest.raises(SystemExit):
        evaluate(folders, "--tolerance", "-1")
    assert "no number of at least 0" in capsys.readouterr().err


def test_rounding_of_headers_is_forgiven(folders: Folders) -> None:
    write_label(folders[1] / "b.nii.gz", SQUARE * 3, (5.0001, 1.0, 1.00001), origin=(0.001, 0, 0))
    assert evaluate(folders, "--labels", "LVC=LV") == 0


def test_figures_beside_the_cases_are_no_concern(folders: Folders) -> None:
    for folder in folders:
        for name in ("a.png", "a_overlay.png", "figure.tif"):
            (folder / name).write_bytes(b"")
    assert evaluate(folders, "--labels", "LVC=LV") == 0


def test_colour_png_is_no_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = make_folders(
        tmp_path,
        {"a": (SQUARE[0], SQUARE[0])},
        reference_labels=SUNNYBROOK,
        prediction_labels=SUNNYBROOK,
        ending=".png",
    )
    from skimage.io import imsave

    imsave(folders[1] / "a.png", np.stack([SQUARE[0]] * 3, axis=-1), check_contrast=False)
    assert "a.png: has 3 channels; a label file has one" in told(capsys, folders)


def test_results_survive_a_failing_second_run(folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folders, "--labels", "LVC=LV") == 0
    before = (folders[1] / "summary.json").read_text()
    assert "metric_per_case" in json.loads(before)
    other_values(*folders)
    assert evaluate(folders, "--labels", "LVC=LV") == 1
    assert (folders[1] / "summary.json").read_text() == before

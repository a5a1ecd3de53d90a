"""``benchmarks/unseen_stress.py``: another data set's test cases under the shifts of the stress command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from nnunetv2_sikd.stress.run import stress
from tests.figures.conftest import load
from tests.helpers import PreprocessedDataset
from tests.stress.test_run import ONE, dataset, rows_of  # noqa: F401
from tests.trainers.conftest import make_trainer  # noqa: F401

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "unseen_stress.py"


def as_target(folders: Path, source: PreprocessedDataset) -> str:
    """The validation cases as test cases of a data set that gives the labels other values."""
    raw, target = folders / "raw" / source.name, folders / "raw" / "Dataset999_Target"
    described = json.loads((raw / "dataset.json").read_text())
    names = [name for name in described["labels"] if name != "background"]
    values = {name: described["labels"][name] for name in names}
    described["labels"].update(dict(zip(names, reversed(values.values()), strict=True)))
    for kind in ("imagesTs", "labelsTs"):
        (target / kind).mkdir(parents=True)
    (target / "dataset.json").write_text(json.dumps(described))
    for case in source.cases[:2]:
        (target / "imagesTs" / f"{case}_0000.nii.gz").hardlink_to(raw / "imagesTr" / f"{case}_0000.nii.gz")
        label = SimpleITK.ReadImage(str(raw / "labelsTr" / f"{case}.nii.gz"))
        array = SimpleITK.GetArrayFromImage(label)
        other = np.zeros_like(array)
        for name in names:
            other[array == values[name]] = described["labels"][name]
        written = SimpleITK.GetImageFromArray(other)
        written.CopyInformation(label)
        SimpleITK.WriteImage(written, str(target / "labelsTs" / f"{case}.nii.gz"))
    return target.name


def test_scores_are_those_of_the_stress_command(
    dataset: PreprocessedDataset,  # noqa: F811
    nnunet_folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, output = as_target(nnunet_folders, dataset), tmp_path / "unseen"
    line = [str(SCRIPT), "-d", dataset.name, "--target", target, "-tr", ONE, "-o", str(output), "--shifts", "noise"]
    monkeypatch.setattr(sys, "argv", line)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    stress(load(dataset), 0, [ONE], tmp_path / "home", device="cpu", mirroring=False)
    home = [row for row in rows_of(tmp_path / "home") if row["shift"] in ("", "noise")]
    assert rows_of(output) == home
    assert {row["severity"] for row in home} == {"0", "1", "2", "3"}
    known = [json.loads((folder / "stress.json").read_text()) for folder in (output, tmp_path / "home")]
    assert known[0]["plans_sha256"] == known[1]["plans_sha256"]
    assert {case: hashes[0] for case, hashes in known[0]["cases_sha256"].items()} == {
        case: hashes[0] for case, hashes in known[1]["cases_sha256"].items()
    }
    before = (output / "stress.csv").stat().st_mtime_ns
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert (output / "stress.csv").stat().st_mtime_ns == before

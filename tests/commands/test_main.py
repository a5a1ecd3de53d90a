"""The command line: fast help, and one clear line with status 1 for whatever a user can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_sikd.commands import doctor
from nnunetv2_sikd.commands.main import _COMMANDS, main
from nnunetv2_sikd.environment import trainer_folder
from tests.helpers import PreprocessedDataset

DATASET = "Dataset901_Tiny"


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a failing command prints on standard error."""
    assert main([str(argument) for argument in arguments]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    "code", ["import nnunetv2_sikd", "from nnunetv2_sikd.commands.main import build_parser as b; b()"]
)
def test_package_and_help_load_nothing_heavy(code: str) -> None:
    heavy = "{'torch', 'numpy', 'nnunetv2', 'matplotlib', 'SimpleITK'}"
    check = f"{code}; import sys; loaded = {heavy} & set(sys.modules); assert not loaded, loaded"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("command", list(_COMMANDS))
def test_every_subcommand_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["-np", "0"], ["-np", "two"], ["--preview", "-1"]])
def test_numbers_are_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["preprocess", "-d", "901", *arguments])
    assert left.value.code == 2
    assert "whole number" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["preprocess"], ["train", "-f", "0"], ["export", "-o", "model.zip"]])
def test_missing_folder_variable(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.delenv(f"nnUNet_{name}", raising=False)
    message = told(capsys, *command, "-d", "901")
    assert "the environment variable nnUNet_" in message
    assert "export nnUNet_" in message


@pytest.mark.usefixtures("dataset_2d")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["preprocess", "-d", "777"], "data set 777 is in none of"),
        (["preprocess", "-d", DATASET, "-p", "otherPlans"], "otherPlans.json: not there, the data set is not planned"),
        (["preprocess", "-d", DATASET, "-c", "4d"], "has no configuration '4d'; choose one of"),
        (["preprocess", "-d", DATASET, "-c", "3d_fullres"], "configuration '3d_fullres' is not preprocessed"),
        (
            ["train", "-d", DATASET, "-f", "0", "-tr", "nnUNetTrainer_SIKDStudnet"],
            "no trainer of this package",
        ),
        (["predict", "-d", DATASET, "-f", "0", "-i", "none", "-o", "p"], "none: no such folder of images"),
        (["prepare", "-d", DATASET], "dataset.json: not there; a raw data set is needed to prepare it"),
        (["prepare", "-d", DATASET, "--batch_size", "4"], "--batch_size needs --base"),
        (["benchmark", "none.yaml"], "none.yaml: no benchmark file"),
        (["benchmark", "cardiac_small"], "Dataset101_ACDC: not there; a benchmark needs the raw data set"),
        (["benchmark", "cardiac_small", "--arms", "stok"], "--arms stok: not in this benchmark; it has stock, sikd"),
        (["benchmark", "cardiac_small", "--folds", "0", "0"], "--folds: [0, 0] must be different"),
        (["export", "-d", DATASET, "-o", "no/such/folder/model.zip"], "no/such/folder: no such folder"),
        (["export", "-d", DATASET, "-o", "model.zip"], "run nnUNetv2_sikd train -d Dataset901_Tiny"),
        (["average", "-d", DATASET, "-i", "nowhere", "-l", "nowhere", "-o", "flat"], "nowhere: no such folder"),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert expected in told(capsys, *arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_export_never_overwrites(
    dataset_2d: PreprocessedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.zip").write_text("precious")
    assert "model.zip: exists" in told(capsys, "export", "-d", dataset_2d.name, "-o", tmp_path / "model.zip")
    assert (tmp_path / "model.zip").read_text() == "precious"


def test_debug_shows_where(nnunet_folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preprocess", "-d", "777", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_doctor_finds_what_is_missing(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", str(trainer_folder()))
    findings = list(doctor.findings())
    assert [finding.text for finding in findings if finding.state == "error"] == []
    assert sum(finding.text.startswith("-tr nnUNetTrainer") for finding in findings) > 20

    monkeypatch.delenv("nnUNet_results")
    monkeypatch.setenv("nnUNet_raw", str(nnunet_folders / "nowhere"))
    monkeypatch.setenv("nnUNet_extTrainer", str(trainer_folder().parent))
    errors = [finding.text for finding in doctor.findings() if finding.state == "error"]
    assert errors[0].startswith("nnUNet_raw names")
    assert errors[1].startswith("nnUNet_results is not set")
    assert "cannot be pickled" in errors[2]
    assert len(errors) == 3
    # The line that doctor prints mends it.
    assert doctor.posix_line() == f"export nnUNet_extTrainer={trainer_folder()}"


def test_export_lines_quote_the_path() -> None:
    assert doctor.posix_line().startswith("export nnUNet_extTrainer=")
    assert str(trainer_folder()) in doctor.powershell_line()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forked workers on this system")
def test_pools_of_nnunet_end_their_workers_under_our_handler_of_sigterm() -> None:
    # With the handler in the workers this hung at one of the first pools.
    script = (
        "from multiprocessing import get_context\n"
        "from nnunetv2_sikd.commands.main import _interrupted_by_termination\n"
        "with _interrupted_by_termination():\n"
        "    for _ in range(40):\n"
        "        with get_context('fork').Pool(12) as pool:\n"
        "            pool.map(abs, range(20))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)

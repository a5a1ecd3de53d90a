"""nnU-Net's own commands as on Windows and macOS: spawned processes, no memory maps, no compilation, odd folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nnunetv2_sikd.environment import stock_command, with_trainers
from tests.helpers import make_preprocessed_dataset

SCHEDULE = "1epochs_2iterations"
TRAINERS = [f"nnUNetTrainer_SIKD{role}_seed0_{SCHEDULE}" for role in ("Teacher", "Student_copyView")]
IN_VAIN = "torch.compile disabled because device is CPU"


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    folder = tmp_path / "Bilder von Zoë & 心 (1)"
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
    dataset = make_preprocessed_dataset(folder / "preprocessed", dim=2, num_cases=3)
    # The site's own sitecustomize, if any, is not needed here.
    environment = {
        **with_trainers(),
        **{f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")},
        "ELSEWHERE": "1",
        "PYTHONPATH": str(Path(__file__).parent / "elsewhere"),
        "nnUNet_compile": "f",
        "nnUNet_n_proc_DA": "2",
        "nnUNet_def_n_proc": "1",
        "nnUNet_SIKD_force_teacher": "1",
        "OMP_NUM_THREADS": "1",
    }

    def run(command: str, *arguments: str | Path, **variables: str) -> str:
        done = subprocess.run(
            [stock_command(command), *map(str, arguments)],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    told = run("nnUNetv2_train", dataset.name, "2d", "0", "-tr", TRAINERS[0], "-device", "cpu")
    assert IN_VAIN not in told
    # Compilation asked for where nnU-Net has none.
    told = run("nnUNetv2_train", dataset.name, "2d", "0", "-tr", TRAINERS[1], "-device", "cpu", nnUNet_compile="t")
    assert IN_VAIN in told
    assert len(list((folder / "results").rglob("validation/summary.json"))) == 2

"""Folders in which every command works, so that whatever goes wrong afterwards is the row's doing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import SimpleITK
import torch

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import with_trainers
from tests.benchmark.helpers import write_benchmark, write_both
from tests.helpers import SPACINGS, make_case, make_dataset_json, make_preprocessed_dataset
from tests.report.helpers import make_benchmark

TINY, RAW = "Dataset901_Tiny", "Dataset902_Raw"
STUDENT, TEACHER, STOCK = "nnUNetTrainer_SIKDStudent", "nnUNetTrainer_SIKDTeacher", "nnUNetTrainer"
CHANNELS = 2


@contextmanager
def nnunet_folders(folder: Path) -> Iterator[None]:
    """Work in a folder whose ``raw``, ``preprocessed`` and ``results`` are nnU-Net's; all is undone at the end."""
    variables = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    before = Path.cwd()
    with patch.dict(os.environ, {**variables, "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}):
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def make_trained(folder: Path) -> None:
    """A planned, preprocessed and trained data set, one that is only raw, images to predict, predictions."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
    dataset = make_preprocessed_dataset(folder / "preprocessed", dim=2, num_cases=3, channels=CHANNELS)
    for name in (TINY, RAW):
        for number, case in enumerate(dataset.cases):
            write_case(folder / "raw" / name / "imagesTr", folder / "raw" / name / "labelsTr", case, number)
        described = make_dataset_json(regions=False, ignore=False, channels=CHANNELS, num_cases=3)
        (folder / "raw" / name / "dataset.json").write_text(json.dumps(described))
    for number, case in enumerate(("a", "b")):
        write_case(folder / "images", folder / "labels", case, 10 + number)
    shutil.copytree(folder / "labels", folder / "predictions")
    for name in ("predictions", "labels"):
        shutil.copy(dataset.folder / "dataset.json", folder / name)
    with nnunet_folders(folder), redirect_stdout(StringIO()):
        _train(folder)
    for leftover in dataset.folder.glob(".*_SIKD_*"):
        leftover.unlink()
    shutil.rmtree(dataset.copies)


def make_to_compare(folder: Path) -> None:
    """A benchmark that has not been run."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
    write_both(folder)
    write_benchmark(folder)


def make_compared(folder: Path) -> None:
    """A benchmark with its results."""
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True)
    with nnunet_folders(folder):
        make_benchmark(folder, patients=3)


TEMPLATES: dict[str, Callable[[Path], None]] = {
    "trained": make_trained,
    "to compare": make_to_compare,
    "compared": make_compared,
}


def write_case(images: Path, labels: Path, case: str, seed: int) -> None:
    """An image file for each channel, and the label file."""
    image, label = make_case(2, channels=CHANNELS, seed=seed)
    files = {images / f"{case}_{channel:04d}.nii.gz": values for channel, values in enumerate(image)}
    for file, values in {**files, labels / f"{case}.nii.gz": label}.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        written = SimpleITK.GetImageFromArray(values)
        written.SetSpacing(SPACINGS[2][::-1])
        SimpleITK.WriteImage(written, str(file))


def _train(folder: Path) -> None:
    """Save untrained networks as finished; the student's record names the teacher."""
    from nnunetv2.run.run_training import get_trainer_from_args

    with patch.dict(os.environ, with_trainers()):
        trainers = {
            name: get_trainer_from_args(TINY, "2d", 0, name, "nnUNetPlans", device=torch.device("cpu"))
            for name in (TEACHER, STUDENT, STOCK)
        }
        for name, trainer in trainers.items():
            trainer.initialize()
            if name == STUDENT:
                teacher = read_checkpoint(checkpoint(folder, TEACHER))
                taught_by = {"teacher_sha256": weights_hash(teacher["network_weights"])}
                trainer.settle_record({**trainer.record("student"), **taught_by})
            for file in ("dataset.json", "dataset_fingerprint.json"):
                shutil.copy(folder / "preprocessed" / TINY / file, Path(trainer.output_folder_base) / file)
            plans = folder / "preprocessed" / TINY / "nnUNetPlans.json"
            shutil.copy(plans, Path(trainer.output_folder_base) / "plans.json")
            trainer.save_checkpoint(str(checkpoint(folder, name)))
            validation = checkpoint(folder, name).parent / "validation"
            validation.mkdir(exist_ok=True)
            (validation.parent / "progress.png").write_bytes(b"no picture")
            (validation / "summary.json").write_text("{}")


def checkpoint(folder: Path, trainer: str) -> Path:
    return folder / "results" / TINY / f"{trainer}__nnUNetPlans__2d" / "fold_0" / "checkpoint_final.pth"

"""Models without this package: any nnU-Net predicts with them."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_sikd import __version__
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import only_here, replace
from nnunetv2_sikd.folders import cannot_write, check_output
from nnunetv2_sikd.preprocessing.planned import find_dataset
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.training import training_is_done

_FOLD_FILES = ("progress.png", "validation/summary.json", "debug.json")
_MODEL_FILES = ("plans.json", "dataset.json", "dataset_fingerprint.json")


def export_model(
    dataset: str | int,
    configuration: str,
    plans: str,
    *,
    trainer: str,
    folds: Sequence[int | str],
    output: Path,
) -> None:
    """Write some folds of a student, or of a stock network that this package trained, into a zip.

    ``nnUNetv2_install_pretrained_model_from_zip`` installs it. The checkpoints name nnU-Net's own trainer, whose
    network they share, so that prediction needs no other code and gives the same result bit by bit. The folder
    keeps the trainer's name: installing overwrites no stock model. ``sikd_provenance.json`` keeps the true trainer
    and, of students, settings and teacher.

    Args:
        dataset: Data set name or id.
        configuration: Configuration name.
        plans: Plans identifier.
        trainer: A trainer of this package, but a teacher's.
        folds: Folds, each fully trained.
        output: Zip to write.

    Raises:
        SIKDError: A fold is missing, unfinished, a teacher or trained by nnU-Net alone, or ``output`` exists.
    """
    require_folders("nnUNet_results")
    _refuse_existing(output)
    if not output.parent.is_dir():
        raise SIKDError(f"{output.parent}: no such folder; make it, or name another one with -o")
    check_output(output.parent)
    if len(set(folds)) < len(folds):
        raise SIKDError(f"-f {' '.join(map(str, folds))}: names a fold twice")
    name = find_dataset(dataset)
    source = Path(get_output_folder(name, trainer, plans, configuration))
    model = source.relative_to(os.environ["nnUNet_results"])
    train = f"nnUNetv2_sikd train -d {dataset} -c {configuration} -p {plans} -tr {trainer} -f"
    if not source.is_dir():
        raise SIKDError(f"{source}: not there; run {train} {' '.join(map(str, folds))}")
    for file in _MODEL_FILES:
        if not (source / file).is_file():
            raise SIKDError(
                f"{source / file}: not there, and nnU-Net needs it to predict; run {train} {folds[0]} again"
            )
    try:
        with _staging_folder(output) as staging:
            staged = staging / "nnUNet_results"
            provenance = {
                f"fold_{fold}": _stage_fold(source / f"fold_{fold}", staged / model / f"fold_{fold}", f"{train} {fold}")
                for fold in folds
            }
            for file in _MODEL_FILES:
                _stage_json(source / file, staged / model / file)
            archive = staging / "export.zip"
            with _results_folder(staged):
                export_pretrained_model(name, str(archive), (configuration,), trainer, plans, tuple(folds))
            with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as zipped:
                zipped.writestr((model / "sikd_provenance.json").as_posix(), json.dumps(provenance, indent=2))
            replace(archive, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    except SIKDError:
        raise
    except RuntimeError as error:  # what torch makes of a full disk
        raise cannot_write(output, OSError(" ".join(str(error).split())[:200])) from error


@contextmanager
def _staging_folder(output: Path) -> Iterator[Path]:
    """A folder beside the zip for it in the making; what a killed export left there goes.

    Raises:
        SIKDError: Another process is writing the same zip, or has just written it.
    """
    folder = output.with_name(f".{output.name}.export")
    folder.mkdir(exist_ok=True)
    staging = folder / "staging"
    with only_here(folder / "lock", f"{output}: another process is writing it; wait for it, or name another with -o"):
        try:
            _refuse_existing(output)
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            yield staging
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # before the lock goes: the next process makes its own


def _refuse_existing(output: Path) -> None:
    if os.path.lexists(output):
        raise SIKDError(f"{output}: exists, choose another name with -o or remove it")


def _stage_json(source: Path, target: Path) -> None:
    """Copy one of nnU-Net's files; it writes them in place, so a kill may have left a part."""
    _copy(source, target)
    try:
        json.loads(target.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SIKDError(f"{source}: damaged ({error}); copy the data set's own into its place") from error


def _stage_fold(source: Path, target: Path, remedy: str) -> dict[str, Any]:
    """Copy one fold with its checkpoint renamed to nnU-Net's trainer; returns its provenance."""
    file = source / "checkpoint_final.pth"
    if not training_is_done(source):
        raise SIKDError(f"{source}: not there, or its training is not finished; run {remedy}")
    if not (source / "progress.png").is_file():
        raise SIKDError(
            f"{source / 'progress.png'}: not there, and nnU-Net's export needs it; copy it from where the fold was "
            "trained"
        )
    checkpoint = read_checkpoint(file)
    record = _record(file, checkpoint)
    target.mkdir(parents=True)
    for name in _FOLD_FILES:
        if (source / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            _copy(source / name, target / name)
    provenance = {
        "exported_by": f"nnunetv2-sikd {__version__}",
        "weights_sha256": weights_hash(checkpoint["network_weights"]),
        **record,
    }
    torch.save({**checkpoint, "trainer_name": "nnUNetTrainer", "sikd_provenance": provenance}, target / file.name)
    return provenance


def _record(file: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What made the model: a student's own record, or a stock trainer's name, which says all.

    Raises:
        SIKDError: A teacher, or a trainer that is not of this package.
    """
    trainer = checkpoint["trainer_name"]
    record = checkpoint["init_args"].get("sikd")
    if isinstance(record, dict) and record.get("role") == "student":
        return record
    if isinstance(record, dict):
        raise SIKDError(
            f"{file}: holds a teacher ({trainer}), which segments class-averaged images, and nobody has those at "
            "prediction; export its student"
        )
    known = getattr(variants, trainer, None)
    if not isinstance(known, type) or known.__module__ != variants.__name__:
        raise SIKDError(
            f"{file}: holds a model of {trainer}, which is no trainer of this package; export it with "
            "nnUNetv2_export_model_to_zip"
        )
    return {"role": "stock network", "trainer": trainer}


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():  # a model from others could have it lead to any file of this machine
        raise SIKDError(f"{source}: is a link, and an export holds only files of the model; put the file in its place")
    shutil.copy2(source, target)


@contextmanager
def _results_folder(folder: Path) -> Iterator[None]:
    """Let nnU-Net take another folder for ``nnUNet_results``, which it reads from the environment."""
    before = os.environ["nnUNet_results"]
    os.environ["nnUNet_results"] = str(folder)
    try:
        yield
    finally:
        os.environ["nnUNet_results"] = before

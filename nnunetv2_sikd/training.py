"""Trainings with nnU-Net's own command, each after what it needs: copies for a teacher, a teacher for a student."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path, PureWindowsPath

from nnunetv2.configuration import default_num_processes
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import require_folders, with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import only_here
from nnunetv2_sikd.preprocessing.hook import copy_spec, write_class_averages
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.prepare import SPLITS_FILE, check_fold, read_splits
from nnunetv2_sikd.processes import run
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.base import nnUNetTrainer_SIKDBase
from nnunetv2_sikd.trainers.lookup import find_trainer
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent


def train(
    dataset: str | int,
    configuration: str = "2d",
    plans: str = "nnUNetPlans",
    *,
    fold: int | str,
    trainer: str = "nnUNetTrainer_SIKDStudent",
    device: str = "cuda",
    num_gpus: int = 1,
    num_processes: int | None = None,
    npz: bool = False,
) -> None:
    """Train with any trainer, and before it whatever it needs; skip what is done, continue what was cut.

    A student gets class-averaged copies and its teacher, a teacher its copies, stock trainers nothing.

    Args:
        dataset: Data set name or id.
        configuration: Configuration name.
        plans: Plans identifier.
        fold: Number of the fold, or ``all``.
        trainer: Name of the trainer.
        device: ``cuda``, ``cpu`` or ``mps``.
        num_gpus: GPUs per training.
        num_processes: Processes that make copies; None for nnU-Net's number.
        npz: Save the softmax outputs of the final validation (not of a student's teacher).

    Raises:
        SIKDError: No such data set, configuration or trainer, a training that is there is of another split, or a step
            failed.
    """
    require_folders("nnUNet_preprocessed", "nnUNet_results")
    names, needs_copies = with_teacher(trainer), _needs_copies(trainer)
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    if is_sikd(trainer) and planned.configuration.previous_stage_name is not None:
        raise SIKDError(f"-c {configuration}: SIKD does not train cascades; choose 2d, 3d_lowres or 3d_fullres")
    _check_fold(planned, fold)
    first = fold_folder(planned, names[0], fold) / "checkpoint_final.pth"
    if training_is_done(fold_folder(planned, trainer, fold)) and not first.is_file():
        print(f"{first}: not there, and a student that is trained needs its teacher no more")
        names, needs_copies = [trainer], False
    all_done = all(training_is_done(fold_folder(planned, name, fold)) for name in names)
    if not all_done:
        check_device(device)
    for name in names:
        _check_checkpoint(fold_folder(planned, name, fold) / "checkpoint_final.pth", name)
        check_split_of(planned, name, fold)
    if needs_copies and not all_done:
        write_class_averages(dataset, configuration, plans, num_processes=num_processes or default_num_processes)
    else:
        copy_spec(planned)  # no copies, but preprocessed cases all the same
    for name in names:
        options = ["-device", device, *(["-num_gpus", str(num_gpus)] if num_gpus > 1 else [])]
        options += ["--npz"] if npz and name == trainer else []
        train_stock(planned, name, fold, options)
    if len(names) > 1:
        teacher, student = (fold_folder(planned, name, fold) for name in names)
        _check_taught_by(student, teacher)


def with_teacher(trainer: str) -> list[str]:
    """Names of the trainers to run for one, in order: a student's teacher before it."""
    known = getattr(variants, trainer, None)
    if isinstance(known, type) and issubclass(known, nnUNetTrainer_SIKDStudent):
        return [known.teacher_class.__name__, trainer]
    return [trainer]


def _needs_copies(trainer: str) -> bool:
    """Whether a trainer, or its teacher, learns from class-averaged copies.

    Raises:
        SIKDError: There is no such trainer.
    """
    known = getattr(variants, trainer, None)
    if isinstance(known, type) and issubclass(known, nnUNetTrainer_SIKDBase):
        return known.sikd.teacher_input == "class_average"
    if known is None and trainer.startswith("nnUNetTrainer_SIKD"):
        raise SIKDError(f"-tr {trainer}: no trainer of this package; nnUNetv2_sikd doctor lists them")
    find_trainer(trainer, "-tr")
    return False


def train_stock(planned: PlannedConfiguration, trainer: str, fold: int | str, options: list[str]) -> None:
    """Run ``nnUNetv2_train`` as far as it has not been run yet.

    Args:
        planned: Data set and configuration.
        trainer: Trainer name.
        fold: Fold.
        options: Further options of ``nnUNetv2_train``.

    Raises:
        SIKDError: The training failed, it was begun and its checkpoint is damaged or unsafe, or another process is
            training it.
    """
    folder = fold_folder(planned, trainer, fold)
    ending = planned.dataset_json["file_ending"]

    def is_done() -> bool:
        return training_is_done(folder) and ("--npz" not in options or _has_probabilities(folder, ending))

    if not is_done():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            told = (
                f"{folder}: cannot be made ({error.strerror or error}); check permissions and space of nnUNet_results"
            )
            raise SIKDError(told) from error
        # Benchmarks share trainings: two of them may come to the same one, and would write the same checkpoints.
        # nnUNetv2_train itself knows no lock, nor does one keep it that outlives this process.
        refusal = f"{folder}: another process is training it; wait for it, or run another fold or trainer"
        with only_here(folder / ".training.lock", refusal):
            # Another process may have just ended it.
            if not is_done():
                _run_or_continue(planned, trainer, fold, options)
                return
    print(f"{trainer}, fold {fold}: already trained in {folder}")


def _run_or_continue(planned: PlannedConfiguration, trainer: str, fold: int | str, options: list[str]) -> None:
    folder = fold_folder(planned, trainer, fold)
    begun = [file for kind in ("final", "latest", "best") if (file := folder / f"checkpoint_{kind}.pth").is_file()]
    if begun:
        read_checkpoint(begun[0])  # nnU-Net, which loads it next, would execute what it holds
        options = [*options, "--val" if begun[0].name == "checkpoint_final.pth" else "--c"]
    command = [
        planned.plans.dataset_name,
        planned.name,
        str(fold),
        "-tr",
        trainer,
        "-p",
        planned.plans.plans_name,
    ]
    command += options
    status = run(["nnUNetv2_train", *command], with_trainers())
    if status != 0:
        raise SIKDError(
            f"{folder}: training with {trainer} failed (exit status {status}, see above); run the same command again "
            "to continue"
        )


def _has_probabilities(folder: Path, ending: str) -> bool:
    """Whether the final validation saved the probabilities of every case, whole."""
    cases = _validated_cases(folder, ending)
    # Of a summary that is not as nnU-Net writes it none: its validation does so anew.
    return cases is not None and all(zipfile.is_zipfile(folder / "validation" / f"{case}.npz") for case in cases)


def _validated_cases(folder: Path, ending: str) -> list[str] | None:
    """Cases of a fold's final validation; None where there is none, or no summary as nnU-Net writes it."""
    try:
        summary = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
        files = [PureWindowsPath(case["prediction_file"]).name for case in summary["metric_per_case"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return [name.removesuffix(ending) for name in files]


def check_split(folder: Path, fold: int | str, splits: Path, ending: str) -> None:
    """Notice a training of another split: its validation cases are not those that ``splits_final.json`` has now.

    It would count as done, or be measured on cases that it has trained on.

    Args:
        folder: nnU-Net's results folder of the fold; one without final validation passes.
        fold: Number of the fold; ``all``, and one that the file does not have, pass.
        splits: The preprocessed data set's ``splits_final.json``, if it is there.
        ending: File ending of the data set.

    Raises:
        SIKDError: It was validated on others, or ``splits_final.json`` is damaged.
    """
    validated = _validated_cases(folder, ending)
    if validated is None or fold == "all" or not splits.is_file():
        return
    folds = read_splits(splits)
    if int(fold) >= len(folds):
        return  # nnU-Net draws its cases
    changed = sorted(set(validated) ^ set(folds[int(fold)]["val"]))
    if changed:
        raise SIKDError(
            f"{folder}: was validated on other cases than fold {fold} of {splits} has ({changed[0]} is one of "
            f"{len(changed)} that differ): the split was changed after this training; move the folder away to train "
            "anew, or put the earlier split back"
        )


def check_split_of(planned: PlannedConfiguration, trainer: str, fold: int | str) -> None:
    """:func:`check_split` of a trainer's fold."""
    splits = planned.dataset_json_file.with_name(SPLITS_FILE)
    check_split(fold_folder(planned, trainer, fold), fold, splits, planned.dataset_json["file_ending"])


def _check_fold(planned: PlannedConfiguration, fold: int | str) -> None:
    cases = nnUNetDatasetBlosc2.get_identifiers(str(planned.cases_folder()))
    splits = planned.dataset_json_file.with_name(SPLITS_FILE)
    check_fold(splits if os.path.lexists(splits) else None, fold, cases, planned.plans.dataset_name)


def _check_checkpoint(file: Path, trainer: str) -> None:
    """Notice a final checkpoint that is none, or another trainer's, before anything is made that builds on it."""
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise SIKDError(f"{file}: is a folder, or a link to nothing; remove it")
    if is_sikd(trainer):
        check_trained_by(file, trainer)


def is_sikd(trainer: str) -> bool:
    """Whether a trainer's name is that of a teacher or student of this package."""
    known = getattr(variants, trainer, None)
    return isinstance(known, type) and issubclass(known, nnUNetTrainer_SIKDBase)


def check_trained_by(file: Path, trainer: str) -> None:
    """Check that a checkpoint is of the trainer in whose folder it lies: nnU-Net would build the other's network.

    Args:
        file: ``checkpoint_final.pth``.
        trainer: Trainer's name.

    Raises:
        SIKDError: It is of another one, or damaged. One that was exported names nnU-Net's own, and says so.
    """
    checkpoint = read_checkpoint(file)
    if checkpoint["trainer_name"] != trainer and "sikd_provenance" not in checkpoint:
        raise SIKDError(
            f"{file}: was trained by {checkpoint['trainer_name']}, not by {trainer}; put the right one there, or move "
            "the folder away and train again"
        )


def _check_taught_by(student: Path, teacher: Path) -> None:
    """Notice a teacher that was trained anew after it had taught."""
    record = read_checkpoint(student / "checkpoint_final.pth")["init_args"].get("sikd", {})
    if record.get("teacher_sha256") != weights_hash(
        read_checkpoint(teacher / "checkpoint_final.pth")["network_weights"]
    ):
        raise SIKDError(
            f"{student}: was taught by another teacher than the one in {teacher}: to train with this one, move the "
            "student's folder away and run the same command again"
        )


def fold_folder(planned: PlannedConfiguration, trainer: str, fold: int | str) -> Path:
    """nnU-Net's results folder of one fold."""
    return Path(get_output_folder(planned.plans.dataset_name, trainer, planned.plans.plans_name, planned.name, fold))


def training_is_done(folder: Path) -> bool:
    """Whether training and final validation of a fold are complete."""
    if not (folder / "checkpoint_final.pth").is_file():
        return False
    try:  # nnU-Net writes it last, and in place: a kill can leave a part of it
        json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True

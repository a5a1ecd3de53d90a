"""Teacher and student, trained one after the other with nnU-Net's own command."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import require_folders, stock_command, with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.hook import copy_spec, write_class_averages
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent


def train_student(
    dataset: str | int,
    configuration: str = "2d",
    plans: str = "nnUNetPlans",
    *,
    fold: int | str,
    student: str = "nnUNetTrainer_SIKDStudent",
    device: str = "cuda",
    num_gpus: int = 1,
    num_processes: int | None = None,
    npz: bool = False,
) -> None:
    """Make the copies, train the teacher, train the student; skip what is done, continue what was cut.

    Args:
        dataset: Data set name or id.
        configuration: Configuration name.
        plans: Plans identifier.
        fold: Number of the fold, or ``all``.
        student: Name of the student's trainer.
        device: ``cuda``, ``cpu`` or ``mps``.
        num_gpus: GPUs per training.
        num_processes: Processes that make copies; None for nnU-Net's number.
        npz: Save the student's softmax outputs of its final validation.

    Raises:
        SIKDError: No such data set, configuration or student, or a step failed.
    """
    require_folders("nnUNet_preprocessed", "nnUNet_results")
    trainer = getattr(variants, student, None)
    if not (isinstance(trainer, type) and issubclass(trainer, nnUNetTrainer_SIKDStudent)):
        raise SIKDError(f"-tr {student}: no student's trainer of this package; nnUNetv2_sikd doctor lists them")
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    if planned.configuration.previous_stage_name is not None:
        raise SIKDError(f"-c {configuration}: SIKD does not train cascades; choose 2d, 3d_lowres or 3d_fullres")
    if trainer.sikd.teacher_input == "class_average":
        write_class_averages(dataset, configuration, plans, num_processes=num_processes or default_num_processes)
    else:
        copy_spec(planned)  # the controls need no copies, but preprocessed cases all the same
    for name in (trainer.teacher_class.__name__, student):
        is_student = name == student
        options = ["-device", device, *(["-num_gpus", str(num_gpus)] if num_gpus > 1 else [])]
        options += ["--npz"] if npz and is_student else []
        train_stock(planned, name, fold, options)
    _check_taught_by(fold_folder(planned, student, fold), fold_folder(planned, trainer.teacher_class.__name__, fold))


def train_stock(planned: PlannedConfiguration, trainer: str, fold: int | str, options: list[str]) -> None:
    """Run ``nnUNetv2_train`` as far as it has not been run yet.

    Args:
        planned: Data set and configuration.
        trainer: Trainer name.
        fold: Fold.
        options: Further options of ``nnUNetv2_train``.

    Raises:
        SIKDError: The training failed.
    """
    folder = fold_folder(planned, trainer, fold)
    wants_npz = "--npz" in options and not any((folder / "validation").glob("*.npz"))
    if training_is_done(folder) and not wants_npz:
        print(f"{trainer}, fold {fold}: already trained in {folder}")
        return
    if (folder / "checkpoint_final.pth").is_file():
        options = [*options, "--val"]
    elif any(folder.glob("checkpoint_*.pth")):
        options = [*options, "--c"]
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
    print(f"\n$ nnUNetv2_train {shlex.join(command)}", flush=True)
    status = subprocess.run([stock_command("nnUNetv2_train"), *command], env=with_trainers(), check=False).returncode
    if status != 0:
        raise SIKDError(
            f"{folder}: training with {trainer} failed (exit status {status}, see above); run the same command again "
            "to continue"
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
    return (folder / "checkpoint_final.pth").is_file() and (folder / "validation" / "summary.json").is_file()

"""The trained networks of a fold, and what they make of one slice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.networks.penultimate import PenultimateCapture
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.lookup import find_trainer
from nnunetv2_sikd.trainers.settings import SIKDSettings
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent
from nnunetv2_sikd.training import check_split_of, fold_folder


class FoldNetworks:
    """Teacher, student and, where it is trained, the stock network of one fold, in evaluation mode.

    Args:
        teacher: Sees class averages.
        student: The network it taught.
        stock: The same network trained without a teacher.
        settings: The student's.
        device: Where they are.
    """

    def __init__(
        self, teacher: Any, student: Any, stock: Any | None, settings: SIKDSettings, device: torch.device
    ) -> None:
        self.teacher = teacher
        self.students = {"student": student} if stock is None else {"student": student, "stock": stock}
        self.settings = settings
        self.device = device
        self._captures = {name: PenultimateCapture(network) for name, network in self.students.items()}
        for network in self.students.values():
            # Captures happen in training mode only; the last layer, a 1×1 convolution, is the same in both.
            network.decoder.seg_layers[-1].train()

    @torch.no_grad()
    def features(self, image: torch.Tensor, teacher_input: torch.Tensor) -> dict[str, torch.Tensor]:
        """Penultimate features by network: ``teacher``, ``student``, ``stock``.

        Shape:
            - image, teacher_input: ``(1, C, *spatial)``, a patch
            - results: ``(features, *spatial)`` on the CPU
        """
        maps = {"teacher": self.teacher.penultimate(teacher_input.to(self.device))}
        for name, network in self.students.items():
            network(image.to(self.device))
            maps[name] = self._captures[name].take()
        return {name: each[0].float().cpu() for name, each in maps.items()}


def load_networks(
    planned: PlannedConfiguration, fold: int | str, student: str, stock: str | None = None, device: str = "cpu"
) -> FoldNetworks:
    """Load a student, the teacher that taught it, and the stock network if it is trained.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold, or ``all``.
        student: Name of the student's trainer; its teacher's follows from it.
        stock: Name of the trainer to compare with; None for stock nnU-Net with the student's
            augmentation, seed and schedule. A line is printed where it is not trained.
        device: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        SIKDError: No student's trainer, student or teacher not trained, one of another split, another teacher than the
            one that taught the student, damaged checkpoints, or no such device.
    """
    require_folders("nnUNet_preprocessed", "nnUNet_results")
    trainer = getattr(variants, student, None)
    if not (isinstance(trainer, type) and issubclass(trainer, nnUNetTrainer_SIKDStudent)):
        raise SIKDError(f"-tr {student}: no student's trainer of this package; nnUNetv2_sikd doctor lists them")
    check_device(device)
    where = torch.device(device)
    teacher, stock = trainer.teacher_class.__name__, stock or stock_of(trainer)
    train = (
        f"nnUNetv2_sikd train -d {planned.plans.dataset_name} -c {planned.name} -p {planned.plans.plans_name} "
        f"-f {fold} -tr {student}"
    )
    files = {name: fold_folder(planned, name, fold) / "checkpoint_final.pth" for name in (teacher, student, stock)}
    for name in files:
        check_split_of(planned, name, fold)
    if not files[student].is_file():
        raise SIKDError(f"{files[student]}: not there, the student is not trained to its end; run {train}")
    if not files[teacher].is_file():
        raise SIKDError(
            f"{files[teacher]}: not there, the teacher that taught the student: put it back, or move the student's "
            f"folder away and run {train}"
        )
    checkpoints = {name: read_checkpoint(files[name]) for name in (teacher, student)}
    taught_by = checkpoints[student]["init_args"].get("sikd", {}).get("teacher_sha256")
    if taught_by != weights_hash(checkpoints[teacher]["network_weights"]):
        raise SIKDError(
            f"{files[student]}: was taught by another teacher than {files[teacher]}: put that one back, or move the "
            f"student's folder away and run {train}"
        )
    stock_network = None
    if files[stock].is_file():
        stock_network = build_network(
            planned, find_trainer(stock, "-stock"), files[stock], read_checkpoint(files[stock]), where
        )
    else:
        print(f"{files[stock]}: not there, the stock network is left out")
    return FoldNetworks(
        build_network(planned, trainer.teacher_class, files[teacher], checkpoints[teacher], where),
        build_network(planned, trainer, files[student], checkpoints[student], where),
        stock_network,
        trainer.sikd,
        where,
    )


def stock_of(student: type[nnUNetTrainer_SIKDStudent]) -> str:
    """Name of the stock trainer with a student's augmentation, seed and schedule."""
    name = student.__name__
    jitter = re.search("(_class(?:Jitter|Contrast|Variation))(?:Both)?([0-9p]*)", name)
    varied = "".join(jitter.groups()) if jitter else ""
    # Not its teacher's schedule, which may have other epochs.
    rest = "".join(re.findall("_seed[0-9]+|_[0-9]+epochs|_[0-9]+iterations", name))
    if "_DA5" in name:
        return f"nnUNetTrainerDA5{varied}{rest}"
    return f"nnUNetTrainer{varied}{'_geometricCE' if '_geometricCE' in name else ''}{rest}"


def build_network(
    planned: PlannedConfiguration, trainer: type[nnUNetTrainer], file: Path, checkpoint: dict[str, Any], where: Any
) -> Any:
    """A trainer's network with the weights of a checkpoint, in evaluation mode.

    Args:
        planned: Data set and configuration.
        trainer: Whose network.
        file: The checkpoint, for messages.
        checkpoint: Its content.
        where: Device.

    Raises:
        SIKDError: The weights do not fit.
    """
    configuration = planned.configuration
    network = trainer.build_network_architecture(
        planned.plans,
        configuration,
        determine_num_input_channels(planned.plans, configuration, planned.dataset_json),
        planned.label_manager.num_segmentation_heads,
        False,
    )
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise SIKDError(f"{file}: its weights do not fit the network of these plans ({told}); train again") from error
    return network.eval().requires_grad_(False).to(where)

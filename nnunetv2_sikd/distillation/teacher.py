"""The frozen teacher of a student: found, checked for fit, loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.networks.skipless import SkiplessUNet


class FrozenTeacher:
    """A trained teacher in evaluation mode, outside everything the student trains or saves.

    Not an ``nn.Module``: as one it would slip into the student's parameters wherever it is assigned.

    Args:
        network: The teacher's network with its weights.
        trainer_name: Trainer that made it.
        file: Its checkpoint.
        sha256: Hash of its weights.
    """

    def __init__(self, network: SkiplessUNet, trainer_name: str, file: Path, sha256: str) -> None:
        self.network = network.eval().requires_grad_(False)
        self.trainer_name = trainer_name
        self.file = file
        self.sha256 = sha256
        self._penultimate = self.network.penultimate

    def __repr__(self) -> str:
        return f"FrozenTeacher({self.trainer_name}, {self.file}, weights SHA-256 {self.sha256})"

    def compile(self) -> None:
        """Compile the forward pass up to the penultimate features."""
        self._penultimate = torch.compile(self.network.penultimate)

    @torch.no_grad()
    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Penultimate features of a teacher input, without gradient.

        Shape:
            - x: ``(B, input channels, *spatial)``
            - result: ``(B, features, *spatial)``
        """
        return self._penultimate(x)


def load_teacher(trainer: Any, teacher_class: Any) -> FrozenTeacher:
    """Load the teacher that fits a student: same data set, plans, configuration, fold, labels and channels.

    Args:
        trainer: The student's trainer, initialised.
        teacher_class: The teacher's trainer class.

    Raises:
        SIKDError: It is missing, unfinished, damaged or does not fit; the message names the command that
            makes a fitting one.
    """
    name = teacher_class.__name__
    plans: PlansManager = trainer.plans_manager
    folder = get_output_folder(plans.dataset_name, name, plans.plans_name, trainer.configuration_name, trainer.fold)
    file = Path(folder) / "checkpoint_final.pth"
    train = (
        f"nnUNetv2_train {plans.dataset_name} {trainer.configuration_name} {trainer.fold} "
        f"-tr {name} -p {plans.plans_name}"
    )
    if trainer.device.type != "cuda":
        train += f" -device {trainer.device.type}"
    if not file.is_file():
        if any((file.parent / f"checkpoint_{kind}.pth").is_file() for kind in ("latest", "best")):
            raise SIKDError(f"{file}: not there, the teacher's training is not finished; run {train} --c")
        raise SIKDError(f"{file}: not there, the student has no teacher; run {train}")

    checkpoint = read_checkpoint(file)
    if checkpoint["trainer_name"] != name:
        raise SIKDError(f"{file}: was trained by {checkpoint['trainer_name']}, not by {name}; run {train}")
    try:
        misfits = _misfits(checkpoint["init_args"], trainer)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200] + (" missing" if isinstance(error, KeyError) else "")
        raise SIKDError(f"{file}: is no complete nnU-Net checkpoint ({told}); run {train}") from error
    if misfits:
        raise SIKDError(
            f"{file}: this teacher does not fit its student: {'; '.join(misfits)}; train a fitting one with {train}"
        )
    network = teacher_class.build_network_architecture(
        plans,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        trainer.enable_deep_supervision,
    )
    try:
        network.load_state_dict(checkpoint["network_weights"])
    except RuntimeError as error:
        raise SIKDError(
            f"{file}: its weights do not fit the network of these plans ({str(error).splitlines()[0]}); "
            f"train a fitting one with {train}"
        ) from error
    sha256 = weights_hash(checkpoint["network_weights"])
    return FrozenTeacher(network.to(trainer.device), name, file, sha256)


def teaching_is_forced() -> bool:
    """Whether ``nnUNet_SIKD_force_teacher`` lets a teacher of low Dice teach all the same."""
    return os.environ.get("nnUNet_SIKD_force_teacher", "0").lower() in ("1", "true", "t")


def _misfits(made_with: dict[str, Any], trainer: Any) -> list[str]:
    """In what a teacher's training differed from the student's; empty where it fits.

    The teacher's plans are compared and nothing else: nnU-Net imports whatever class plans name, and these may be
    anybody's. Its network is built from the student's.
    """
    theirs = PlansManager(made_with["plans"])
    ours: PlansManager = trainer.plans_manager
    pairs: dict[str, tuple[Any, Any]] = {
        "data set": (theirs.dataset_name, ours.dataset_name),
        "plans": (theirs.plans_name, ours.plans_name),
        "configuration": (made_with["configuration"], trainer.configuration_name),
        "fold": (made_with["fold"], trainer.fold),
        "labels": (made_with["dataset_json"].get("labels"), trainer.dataset_json.get("labels")),
        "regions_class_order": (
            made_with["dataset_json"].get("regions_class_order"),
            trainer.dataset_json.get("regions_class_order"),
        ),
        "validation cases (SHA-256)": (
            made_with.get("sikd", {}).get("validation_cases_sha256"),
            trainer.record("student")["validation_cases_sha256"],
        ),
        "channel names": (_channels(made_with["dataset_json"]), _channels(trainer.dataset_json)),
    }
    misfits = [
        f"{what} {str(theirs_)[:200]} instead of {ours_}"
        for what, (theirs_, ours_) in pairs.items()
        if theirs_ != ours_
    ]
    if misfits:
        return misfits
    settings = [
        {
            **plans.get_configuration(trainer.configuration_name).configuration,
            "transpose_forward": plans.transpose_forward,
            "intensity properties": plans.foreground_intensity_properties_per_channel,
        }
        for plans in (theirs, ours)
    ]
    changed = sorted(key for key in {*settings[0], *settings[1]} if settings[0].get(key) != settings[1].get(key))
    if changed:
        misfits.append(f"plans changed since in {', '.join(changed)}")
    return misfits


def _channels(dataset_json: dict[str, Any]) -> Any:
    return dataset_json.get("channel_names", dataset_json.get("modality"))

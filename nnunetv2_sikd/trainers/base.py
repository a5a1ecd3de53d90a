"""What teacher and student share."""

from __future__ import annotations

import os
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import distributed as dist

from nnunetv2_sikd import __version__
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.prepare import SPLITS_FILE, check_fold, read_splits
from nnunetv2_sikd.ranks import refused_together
from nnunetv2_sikd.trainers.checkpoints import WholeCheckpoints
from nnunetv2_sikd.trainers.cost import CostRecord
from nnunetv2_sikd.trainers.finite import FiniteLoss
from nnunetv2_sikd.trainers.settings import SIKDSettings
from nnunetv2_sikd.trainers.splits import WholeSplit


class nnUNetTrainer_SIKDBase(FiniteLoss, CostRecord, WholeCheckpoints, WholeSplit):
    """nnU-Net's trainer with SIKD's settings."""

    sikd: ClassVar[SIKDSettings] = SIKDSettings()

    def initialize(self) -> None:
        """Build everything, as nnU-Net does.

        Raises:
            SIKDError: The configuration is the second stage of a cascade, the split cannot be, or the batch cannot be
                shared evenly.
        """
        if self.is_cascaded:
            raise SIKDError(
                f"SIKD does not train cascades, and {self.configuration_name} is the second stage of one: "
                "choose another configuration (2d, 3d_lowres, 3d_fullres)"
            )
        self._check_split()
        if self.is_ddp:
            batch_size, processes = self.configuration_manager.batch_size, dist.get_world_size()
            if self.configuration_manager.batch_dice and batch_size % processes:
                # nnU-Net's loss gathers one row per image, and fails or goes wrong where their number differs.
                raise SIKDError(
                    f"-num_gpus {processes}: the batch size of {self.configuration_name}, {batch_size}, cannot be "
                    f"shared evenly, which nnU-Net's Dice over the batch needs: choose a divisor of {batch_size}"
                )
            with refused_together():
                if self.local_rank == 0:
                    self.do_split()  # writes splits_final.json where there is none: others must not read half of it
        super().initialize()

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split of the cases into training and validation.

        Raises:
            SIKDError: ``splits_final.json`` is damaged, names cases that are not there, or none to
                validate.
        """
        self._check_split()
        training, validation = super().do_split()
        return training, validation

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's final validation, but for predictions that the second stage of a cascade would need.

        SIKD trains no cascades, and nnU-Net fails at the end of a training where that stage is not preprocessed.
        """
        self.configuration_manager.configuration["next_stage"] = None
        super().perform_actual_validation(save_probabilities)

    def _check_split(self) -> None:
        file = Path(self.preprocessed_dataset_folder_base) / SPLITS_FILE
        # For a fold beyond the file's nnU-Net draws a random split.
        if self.fold != "all" and os.path.lexists(file) and int(self.fold) < len(read_splits(file)):
            cases = nnUNetDatasetBlosc2.get_identifiers(self.preprocessed_dataset_folder)
            check_fold(file, self.fold, cases, self.plans_manager.dataset_name)

    def record(self, role: str) -> dict[str, Any]:
        """What made this model, for its checkpoint.

        Args:
            role: ``teacher`` or ``student``.
        """
        _, validation_cases = self.do_split()
        return {
            "role": role,
            "trainer": type(self).__name__,
            "package_version": __version__,
            **asdict(self.sikd),
            "epochs": self.num_epochs,
            "iterations": self.num_iterations_per_epoch,
            # Of another split, a teacher of the same fold has seen the student's validation cases.
            "validation_cases_sha256": sha256("\n".join(sorted(validation_cases)).encode()).hexdigest(),
        }

    def settle_record(self, record: dict[str, Any]) -> None:
        """Put the record where checkpoints are made from, under ``init_args["sikd"]``.

        Raises:
            SIKDError: The training is being continued, and began with another record.
        """
        earlier = self.my_init_kwargs.get("sikd", record)
        before = {**asdict(SIKDSettings()), **earlier}  # an older version did not know all of the settings
        changed = [
            f"{key} {before.get(key)} is now {value}"
            for key, value in record.items()
            if key != "package_version" and before.get(key) != value
        ]
        if changed:
            raise SIKDError(
                f"{self.output_folder}: this training began with another teacher, data split or settings "
                f"({'; '.join(changed)}): restore them, or start anew without --c"
            )
        self.my_init_kwargs["sikd"] = {**earlier, **record}

"""What teacher and student share."""

from __future__ import annotations

import os
from inspect import signature
from typing import Any, ClassVar

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers.settings import SIKDSettings


class nnUNetTrainer_SIKDBase(nnUNetTrainer):
    """nnU-Net's trainer with SIKD's settings and checkpoints that are never half-written."""

    sikd: ClassVar[SIKDSettings] = SIKDSettings()

    def initialize(self) -> None:
        """Build everything, as nnU-Net does.

        Raises:
            SIKDError: The configuration is the second stage of a cascade.
        """
        if self.is_cascaded:
            raise SIKDError(
                f"SIKD does not train cascades, and {self.configuration_name} is the second stage of one: "
                "choose another configuration (2d, 3d_lowres, 3d_fullres)"
            )
        super().initialize()

    def save_checkpoint(self, filename: str) -> None:
        """Write the checkpoint beside its place, then move it there: a kill never leaves half a file."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        partial = f"{filename}.tmp"  # one name, so that a kill leaves at most one
        try:
            super().save_checkpoint(partial)
            os.replace(partial, filename)
        finally:
            if os.path.exists(partial):
                os.remove(partial)


def transform_arguments(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of one of nnU-Net's transform builders by name, defaults included."""
    bound = signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments

"""What ``nnUNet_extTrainer`` points to: hands nnU-Net the trainers of the installed package.

This folder must hold nothing else and be no package (see ``nnunetv2_sikd.environment.trainer_folder``).
"""

from typing import Any

from nnunetv2_sikd.errors import tell_in_one_line
from nnunetv2_sikd.trainers import variants

tell_in_one_line()


def __getattr__(name: str) -> Any:
    return getattr(variants, name)

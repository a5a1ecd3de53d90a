"""Trainers by name, as nnU-Net finds them."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_sikd.environment import TRAINER_VARIABLE, with_trainers
from nnunetv2_sikd.errors import SIKDError


def find_trainer(name: str, option: str) -> type[nnUNetTrainer]:
    """A trainer of nnU-Net's, of this package's or of another folder of ``nnUNet_extTrainer``; needs no export line.

    Args:
        name: Class name.
        option: With which the user names it, for the message.

    Raises:
        SIKDError: There is none.
    """
    before = os.environ.get(TRAINER_VARIABLE)
    os.environ[TRAINER_VARIABLE] = with_trainers()[TRAINER_VARIABLE]
    try:
        with redirect_stdout(StringIO()):
            found: type[nnUNetTrainer] = recursive_find_trainer_class_by_name(name)
    except (ImportError, SyntaxError, NameError) as error:  # of the user's own file, most likely
        raise SIKDError(
            f"{option} {name}: a module of the folders in nnUNet_extTrainer cannot be imported "
            f"({type(error).__name__}: {error}); mend it, or take its folder out"
        ) from error
    # AssertionError of a class that is no trainer, TypeError of what is no class.
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SIKDError(
            f"{option} {name}: nnU-Net finds no such trainer; nnUNetv2_sikd doctor lists this package's, and "
            "nnUNet_extTrainer must name the folder of any other"
        ) from error
    finally:
        if before is None:
            os.environ.pop(TRAINER_VARIABLE)
        else:
            os.environ[TRAINER_VARIABLE] = before
    return found

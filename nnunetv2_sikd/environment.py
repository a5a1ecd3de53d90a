"""nnU-Net's environment variables, and the one that lets it find this package's trainers.

Imports nothing heavy: ``--help`` must stay fast.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from nnunetv2_sikd.errors import SIKDError

TRAINER_VARIABLE = "nnUNet_extTrainer"
FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def trainer_folder() -> Path:
    """The folder that ``nnUNet_extTrainer`` must name.

    It holds one module that re-exports the trainers of the installed package. nnU-Net drops every module it
    imported from such a folder after the search; were the trainers themselves in it, the class it found
    could not be pickled and would differ from the imported one.
    """
    return Path(__file__).parent / "external_trainers"


def with_trainers(environment: dict[str, str] | None = None) -> dict[str, str]:
    """A copy of the environment in which nnU-Net finds this package's trainers; others' folders stay listed.

    Ours comes first, since nnU-Net takes the first class it finds, and an import error in an earlier folder
    would end its search.

    Args:
        environment: What to start from; None for this process's.
    """
    result = dict(os.environ if environment is None else environment)
    listed = [path for path in result.get(TRAINER_VARIABLE, "").split(os.pathsep) if path.strip()]
    others = [path for path in listed if not shadows_trainers(path)]
    result[TRAINER_VARIABLE] = os.pathsep.join([str(trainer_folder()), *others])
    return result


def shadows_trainers(path: str | Path) -> bool:
    """Whether nnU-Net, searching this folder, meets the trainers' own modules (and so makes other classes).

    True for every folder of this package and every folder that contains it.
    """
    folder, package = Path(path).resolve(), Path(__file__).parent.resolve()
    return folder.is_relative_to(package) or package.is_relative_to(folder)


def require_folders(*variables: str) -> None:
    """Check nnU-Net's folder variables.

    Args:
        variables: Names of those needed.

    Raises:
        SIKDError: One is not set, or names no folder.
    """
    for variable in variables:
        folder = os.environ.get(variable)
        if not folder:
            raise SIKDError(
                f"the environment variable {variable} is not set: set it to nnU-Net's folder, for example "
                f"export {variable}=/path/to/{variable}"
            )
        if not Path(folder).is_dir():
            raise SIKDError(f"{folder}: the environment variable {variable} names it, and it is no folder: make it")


def stock_command(name: str) -> str:
    """Path of one of nnU-Net's commands, of the same installation as this package.

    Args:
        name: Command (``nnUNetv2_train``).

    Raises:
        SIKDError: It is not installed.
    """
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        raise SIKDError(f"{name} is not installed beside this package: pip install nnunetv2")
    return found

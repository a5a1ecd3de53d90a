"""Output folders: found unfit before the work, and made at its end."""

from __future__ import annotations

import os
from pathlib import Path

from nnunetv2_sikd.errors import SIKDError


def check_output(folder: Path) -> None:
    """Check, before any work, that a folder is there or can be made, and can be written.

    Raises:
        SIKDError: Something else has its name, or it cannot be written.
    """
    whole = Path(os.path.abspath(folder))
    there = next((path for path in (whole, *whole.parents) if os.path.lexists(path)), None)
    if there is None:  # Windows: no such drive
        raise SIKDError(f"{folder}: cannot be written ({whole.anchor} is not there); name another folder with -o")
    if not there.is_dir():
        shown = folder if there == whole else there
        raise SIKDError(f"{shown}: is no folder, so nothing can be written there; name another folder with -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise SIKDError(f"{folder}: cannot be written (no permission); name another folder with -o")


def make_folder(folder: Path) -> None:
    """Make an output folder.

    Raises:
        SIKDError: It cannot be made, or not be written.
    """
    check_output(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> SIKDError:
    """The message for a file or folder that could not be written."""
    return SIKDError(
        f"{path}: cannot be written ({error.strerror or error}); check permissions and free space, or name another "
        "folder with -o"
    )

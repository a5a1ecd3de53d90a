"""The one exception this package raises for whatever a user can mend."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import TracebackType

DEBUG_VARIABLE = "nnUNet_SIKD_debug"


class SIKDError(RuntimeError):
    """Bad input or state, told in one line: what is wrong, in which file, and what to do."""


@cache
def tell_in_one_line() -> None:
    """Have nnU-Net's own commands tell a :class:`SIKDError` in one line too, and every other error as before.

    With ``nnUNet_SIKD_debug=1`` the traceback comes, as with this package's ``--debug``.
    """
    others = sys.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        told = _told_by(error)
        if told is not None and os.environ.get(DEBUG_VARIABLE, "0") in ("", "0"):
            print(f"Error: {told}", file=sys.stderr)
        else:
            others(kind, error, trace)

    sys.excepthook = tell


def _told_by(error: BaseException) -> str | None:
    """The line of a :class:`SIKDError`, raised here or in a process of a training on several GPUs; None of others."""
    if isinstance(error, SIKDError):
        return str(error)
    # torch's, by its name: this module is to import nothing. It holds the other process's traceback as text.
    last = str(error).rstrip().rpartition("\n")[2]
    prefix = f"{SIKDError.__module__}.{SIKDError.__qualname__}: "
    if type(error).__name__ == "ProcessRaisedException" and last.startswith(prefix):
        return last.removeprefix(prefix)
    return None

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
        if isinstance(error, SIKDError) and os.environ.get(DEBUG_VARIABLE, "0") in ("", "0"):
            print(f"Error: {error}", file=sys.stderr)
        else:
            others(kind, error, trace)

    sys.excepthook = tell

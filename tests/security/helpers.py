"""What the tests of hostile files share."""

from __future__ import annotations

import os
from pathlib import Path


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, crater: Path) -> None:
        self.crater = crater

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.crater),)


# Names that would leave the folder they are used in, end a path early, or be an option.
LEADING_OUT = ["../x", "..", "/tmp/x", "a/../../x", "C:\\x", "..\\x", "a\0b", "a\nb", "", ".", "-o", "--debug"]

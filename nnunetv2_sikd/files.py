"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Write a file beside its place and move it there at the end: a kill leaves the old file or the new one.

    Args:
        file: Where it goes; its folder must exist.

    Yields:
        Where to write it; with the same ending, by which image libraries choose the format.
    """
    partial = file.with_name(f".partial_{os.getpid()}_{file.name}")
    try:
        yield partial
        os.replace(partial, file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_bytes(file: Path, content: bytes) -> None:
    """Write a file as :func:`written_whole` does."""
    with written_whole(file) as partial:
        partial.write_bytes(content)


def write_text(file: Path, text: str) -> None:
    """Write a text file as :func:`written_whole` does."""
    write_bytes(file, text.encode())


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file as :func:`written_whole` does."""
    write_text(file, json.dumps(content, indent=4, ensure_ascii=False) + "\n")

"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_text(file: Path, text: str) -> None:
    """Write a text file beside its place and move it there: a kill leaves the old file or the new one.

    Args:
        file: Where it goes; its folder must exist.
        text: Its content.
    """
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Write any file as :func:`write_text` does."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_json(file: Path, content: Any) -> None:
    """Write a JSON file as :func:`write_text` does."""
    write_text(file, json.dumps(content, indent=4, ensure_ascii=False) + "\n")

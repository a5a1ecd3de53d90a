"""JSON files that people edit by hand: read with one clear line for whatever is wrong in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError


def read_json(file: Path, remedy: str) -> Any:
    """Content of a JSON file.

    Args:
        file: UTF-8.
        remedy: What to do about a bad one, for the message.

    Raises:
        SIKDError: It cannot be read, is no JSON, or an object in it has a key twice, of which Python's and nnU-Net's
            reader forget the first.
    """
    try:
        return json.loads(file.read_bytes().decode("utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise SIKDError(f"{file}: cannot be read ({error.strerror}); {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise SIKDError(f"{file}: not valid JSON ({' '.join(str(error).split())}); {remedy}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} comes twice in the same object")
    return content

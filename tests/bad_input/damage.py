"""Ways to make a good file bad; each takes paths relative to the workspace and returns what does it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from tests.bad_input.rows import Damage


def cut(file: str, keep: float = 0.5) -> Damage:
    """The file ends early."""
    return lambda folder: (folder / file).write_bytes(_bytes(folder / file)[: int(len(_bytes(folder / file)) * keep)])


def write(file: str, content: bytes | str = b"") -> Damage:
    """The file holds this."""

    def do(folder: Path) -> None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return do


def remove(path: str) -> Damage:
    """The file or folder is not there."""

    def do(folder: Path) -> None:
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
        else:
            (folder / path).unlink()

    return do


def as_folder(file: str) -> Damage:
    """A folder has the file's name."""
    return both(remove(file), lambda folder: (folder / file).mkdir())


def as_loop(path: str) -> Damage:
    """A symbolic link that points to itself has the file's name."""

    def do(folder: Path) -> None:
        if (folder / path).exists():
            remove(path)(folder)
        (folder / path).symlink_to((folder / path).name)

    return do


def move(path: str, target: str) -> Damage:
    return lambda folder: (folder / path).rename(folder / target)


def copy(path: str, target: str) -> Damage:
    return lambda folder: shutil.copy(folder / path, folder / target)


def both(*damages: Damage) -> Damage:
    """One after the other."""

    def do(folder: Path) -> None:
        for damage in damages:
            damage(folder)

    return do


def header(file: str, place: int, kind: str, value: float) -> Damage:
    """A field of a NIfTI header holds another value (``place`` in bytes, ``kind`` as in ``struct``)."""

    def do(folder: Path) -> None:
        content = bytearray(gzip.decompress(_bytes(folder / file)))
        struct.pack_into(f"<{kind}", content, place, value)
        (folder / file).write_bytes(gzip.compress(bytes(content)))

    return do


def spacing(file: str, value: float, axis: int = 3) -> Damage:
    """The header says this spacing along an axis (1 to 3), and so does its affine."""
    place = {1: 280, 2: 300, 3: 320}[axis]
    return both(header(file, 76 + 4 * axis, "f", value), header(file, place, "f", value))


def image(file: str, change: Callable[[np.ndarray], np.ndarray], **geometry: Any) -> Damage:
    """The image holds other values, or has another geometry (``spacing``, ``origin``)."""

    def do(folder: Path) -> None:
        found = SimpleITK.ReadImage(str(folder / file))
        written = SimpleITK.GetImageFromArray(change(SimpleITK.GetArrayFromImage(found)), isVector=False)
        if written.GetDimension() == found.GetDimension():
            written.CopyInformation(found) if written.GetSize() == found.GetSize() else written.SetSpacing(
                found.GetSpacing()
            )
        for name, value in geometry.items():
            getattr(written, f"Set{name.capitalize()}")(value)
        SimpleITK.WriteImage(written, str(folder / file))

    return do


def geometry(file: str, **changed: Any) -> Damage:
    """The image has another geometry (``spacing``, ``origin``)."""
    return image(file, lambda values: values, **changed)


def values(file: str, value: float, kind: Any) -> Damage:
    """A few pixels have this value, in a file of this type."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(kind)
        array[..., :2, :2] = value
        return array

    return image(file, change)


def edit(file: str, change: Callable[[Any], object]) -> Damage:
    """The JSON file is edited by hand: ``change`` alters its content in place, or returns another one."""

    def do(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        changed = change(content)
        (folder / file).write_text(json.dumps(content if changed is None else changed))

    return do


def put(file: str, *keys: Any, value: Any) -> Damage:
    """One entry of a JSON file is another one."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit(file, change)


def drop(file: str, *keys: Any) -> Damage:
    """One entry of a JSON file is missing."""

    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit(file, change)


def replace(file: str, old: str, new: str) -> Damage:
    """Some text of a file is another one."""

    def do(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return do


def unset(variable: str) -> Damage:
    return lambda folder: os.environ.pop(variable)


def setting(variable: str, value: str) -> Damage:
    return lambda folder: os.environ.__setitem__(variable, value)


def read_only(path: str) -> Damage:
    """Nothing can be written in the folder."""
    return lambda folder: (folder / path).mkdir(exist_ok=True) or (folder / path).chmod(0o555)


def _bytes(file: Path) -> bytes:
    return file.read_bytes()

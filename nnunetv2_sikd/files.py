"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nnunetv2_sikd.errors import SIKDError

_PATIENCE_SECONDS = 5.0
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # some network file systems
_LONGEST_NAME = 255  # bytes, of the common file systems
# Windows gives these to devices, in any folder and with any ending.
_DEVICES = ("CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10)))


def check_name(name: str) -> str:
    """Check that every system can have a file or folder of this name, since results move between them.

    Args:
        name: Without any folder.

    Raises:
        ValueError: Windows, macOS or Linux cannot.
    """
    bad = sorted({character for character in name if character in '<>:"/\\|?*' or not character.isprintable()})
    if bad:
        raise ValueError(f"{name!r}: no file can be named so on every system; leave out {' '.join(map(repr, bad))}")
    if not name or name[-1] in ". ":
        raise ValueError(f"{name!r}: no file can be named so on Windows; choose a name that ends in another character")
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        raise ValueError(f"{name!r}: no file can be named so on Windows, where it is a device; choose another name")
    return name


def replace(source: Path, target: Path) -> None:
    """Move a file into its place, as ``os.replace`` does; on Windows, wait for whoever has the old one open.

    There an open file cannot be replaced: a virus scanner lets go of it soon, a spreadsheet does not.

    Args:
        source: The new file, on the same file system.
        target: Its place.

    Raises:
        SIKDError: Another program keeps the old file open (Windows).
        OSError: The system refuses for another reason.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError as error:
            if sys.platform != "win32" or not target.is_file():
                raise
            if time.monotonic() > end:
                raise SIKDError(
                    f"{target}: cannot be replaced ({error.strerror}): close the program that has it open, or make it "
                    "writable, then run the same command again"
                ) from error
        time.sleep(0.1)


@contextmanager
def written_whole(file: Path) -> Iterator[Path]:
    """Write a file beside its place and move it there at the end: a kill leaves the old file or the new one.

    Args:
        file: Where it goes; its folder must exist.

    Yields:
        Where to write it; with the same ending, by which image libraries choose the format.
    """
    partial = file.with_name(f".partial_{os.getpid()}_{file.name}")
    if len(os.fsencode(partial.name)) > _LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]
        partial = file.with_name(f".partial_{os.getpid()}_{digest}_{file.name[-16:]}")
    try:
        yield partial
        replace(partial, file)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def only_here(lock_file: Path, refusal: str) -> Iterator[None]:
    """Keep a second process out, which would write the same files; not on file systems without locks.

    The lock goes with the process, however that ends; its file stays, since another process may wait for it.

    Args:
        lock_file: What both look at; its folder must exist.
        refusal: What the second one is told.

    Raises:
        SIKDError: Another process is there.
    """
    # Without locks of the system newer versions would leave a file instead, which outlives a killed process.
    newer = "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    options: dict[str, Any] = {"fallback_to_soft": False} if newer else {}
    lock = FileLock(lock_file, **options)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SIKDError(refusal) from error
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        lock.release()


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


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()

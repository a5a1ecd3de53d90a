"""Run a row as a user would type it, and look at all that came of it."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nnunetv2_sikd import processes, steps
from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.environment import stock_command, with_trainers
from tests.bad_input.rows import Row, Valid
from tests.bad_input.workspace import TEMPLATES, nnunet_folders

_PROGRESS = re.compile(r"\d+%\||\d+\w+ \[\d\d:")

# What nibabel, gzip and nnU-Net's readers say of an image.
_LIBRARY = (r"(?<=or no NIfTI image \().*?(?=\); copy)", r"(?<=cannot be read \()\w+Error: .*?(?=\); copy)")


class StartedError(BaseException):
    """A command of nnU-Net's would be started now; nothing of this package catches it."""


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        status: Exit status; None if it would have started one of nnU-Net's commands.
        out: What it printed.
        err: What it printed on standard error, without progress bars.
        started: The command of nnU-Net's.
        changed: Files and folders that are new, changed or gone.
    """

    status: int | None
    out: str
    err: str
    started: str
    changed: tuple[str, ...]

    def message(self, row: Row) -> str:
        """The message as the table has it: its last line, with ``…`` for what a library says."""
        lines = (self.out if row.section == "doctor" and self.status == 1 else self.err).splitlines()
        told = [line for line in lines if line.startswith(("Error: ", "[FAIL] "))] or lines or ["nothing"]
        message = told[-1]
        for pattern in (*_LIBRARY, *row.library):
            message = re.sub(pattern, "…", message)
        return message


def prepare(folder: Path, templates: Path, which: str) -> None:
    """Copy a workspace, which is made the first time it is asked for."""
    template = templates / which.replace(" ", "_")
    if not template.is_dir():
        TEMPLATES[which](template)
    shutil.copytree(template, folder, symlinks=True)


def run(row: Row | Valid, folder: Path, *more: str) -> Outcome:
    """Type the row's command in a workspace.

    Args:
        row: What to run.
        folder: The workspace, already damaged.
        more: Further arguments.
    """
    arguments = [*shlex.split(row.command), *more]
    before = _state(folder)
    with _captured() as captured:
        if arguments[0].startswith("nnUNetv2"):
            status: int | None = _run_stock(arguments)
            started = ""
        else:
            status, started = _run_here(arguments)
    out, err = (text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "") for text in captured)
    err = "\n".join(line for line in re.split(r"[\r\n]+", err) if line.strip() and not _PROGRESS.search(line))
    after = _state(folder)
    changed = tuple(sorted(path for path in {*before, *after} if before.get(path) != after.get(path)))
    return Outcome(status, out, err, started, changed)


def unexpected(outcome: Outcome, row: Row) -> list[str]:
    """What is new, changed or gone and should not be."""
    return [path for path in outcome.changed if not any(fnmatch(path, pattern) for pattern in row.leaves)]


def _run_here(arguments: Sequence[str]) -> tuple[int | None, str]:
    def start(command: Sequence[str], *_: Any, **__: Any) -> Any:
        raise StartedError(shlex.join(command))

    with patch.object(processes, "start", start), patch.object(steps, "start", start), _as_a_user():
        try:
            return main(arguments), ""
        except StartedError as started:
            return None, str(started)
        except SystemExit as left:
            return int(left.code or 0), ""


def _run_stock(arguments: Sequence[str]) -> int:
    command = [stock_command(arguments[0]), *arguments[1:]]
    # Libraries warn of what they will change.
    environment = {**with_trainers(), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, env=environment, check=False, timeout=300).returncode


@contextlib.contextmanager
def workplace_of(row: Row | Valid, folder: Path, templates: Path) -> Iterator[None]:
    """Be in a copy of the row's workspace, damaged as it says, with nnU-Net's variables set.

    Args:
        row: Which.
        folder: Where the copy goes.
        templates: Where the undamaged workspaces are kept.
    """
    prepare(folder, templates, row.workspace)
    with patch.dict(os.environ), nnunet_folders(folder):
        (row.damage if isinstance(row, Row) else row.change)(folder)
        yield


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """What this process and its children print, both streams."""
    told: list[str] = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        sys.stdout.flush(), sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield told
        finally:
            for stream in (out, err):
                stream.flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            for stream in (out, err):
                stream.seek(0)
                told.append(stream.read())


@contextlib.contextmanager
def _as_a_user() -> Iterator[None]:
    """Let permissions count for root too, who could write a read-only folder: tests often run as root."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    whole, reduced = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    if libc.capget(header, whole) != 0:
        yield
        return
    reduced[:] = whole[:]
    reduced[0] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER out of the effective ones
    libc.capset(header, reduced)
    try:
        yield
    finally:
        libc.capset(header, whole)


def _state(folder: Path) -> dict[str, str]:
    """Each path of a folder with what it is."""
    state = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            state[name] = "link"
        elif path.is_dir():
            state[name] = "folder"
        else:
            state[name] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return state

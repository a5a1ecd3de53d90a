"""Run commands one after the other: shown, logged, timed, skipped when done."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.processes import GRACE_SECONDS, as_typed, end, start

_POLL_SECONDS = 0.5
_SIGKILL = 9  # signal.SIGKILL, which Windows does not have
_POINTS_UP = "see above"
_ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b")


@dataclass(frozen=True)
class Step:
    """One command of nnU-Net or of this package.

    Attributes:
        name: Short, for the log file's name.
        title: What happens, in plain words.
        command: Command and arguments.
        is_done: Whether its result is in place.
        total: How many ``unit`` there are to do; None if the log does not tell how far it is.
        unit: What the bar counts.
        progress: Number of units done, from the text of the log.
    """

    name: str
    title: str
    command: Sequence[str]
    is_done: Callable[[], bool]
    total: int | None = None
    unit: str = ""
    progress: Callable[[str], int] = lambda log: 0


def execute(step: Step, log: Path, environment: Mapping[str, str]) -> None:
    """Run a step's command with a progress bar.

    Args:
        step: What to run.
        log: Where its output goes; appended to, since what an interrupted run wrote is worth keeping.
        environment: The command's environment variables.

    Raises:
        SIKDError: The command failed, or ended without its result.
    """
    print(f"  $ {as_typed(step.command)}", flush=True)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    except OSError as error:
        raise SIKDError(f"{log}: cannot be written ({error.strerror}); name another folder with -o") from error
    with output:
        begin = output.tell()
        process = start(step.command, environment, output=output)
        try:
            code = _wait(process, step, log, begin)
        finally:
            end(process, GRACE_SECONDS + 5)
    if code != 0 or not step.is_done():
        raise SIKDError(
            f"{log}: {step.command[0]} {_ending(code)}: {_last_meaningful_line(log, begin)}; once that is mended, "
            "run the same command again: what is done is kept"
        )


def _ending(code: int) -> str:
    if code < 0:
        told = " (out of memory?)" if code == -_SIGKILL else ""
        return f"was ended by signal {-code}{told}"
    return f"failed (exit status {code})" if code else "ended without its result"


def epochs_done(log: str) -> int:
    """Number of epochs that nnU-Net has finished, from what it printed; it counts from 0, also when continued."""
    return max(map(int, re.findall(r"Epoch (\d+)", log)), default=0) + ("Training done" in log)


def cases_predicted(log: str) -> int:
    """Number of cases that nnU-Net has predicted, from what it printed."""
    return log.count("\ndone with ")


def _wait(process: subprocess.Popen[bytes], step: Step, log: Path, begin: int) -> int:
    layout = "  {bar:30} {n_fmt}/{total_fmt} {unit} [{elapsed}]" if step.total else "  time [{elapsed}]"
    with tqdm(total=step.total, unit=step.unit, bar_format=layout, file=sys.stdout) as bar:
        while True:
            try:
                code = process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                code = None
            done = step.progress(_read(log, begin))
            if code == 0 and step.total:
                done = step.total
            if done > bar.n:
                bar.update(done - bar.n)
            elif sys.stdout.isatty():
                bar.refresh()
            if code is not None:
                return code


def _read(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin, os.SEEK_SET)
        return file.read().decode("utf-8", "replace")


def _last_meaningful_line(log: Path, begin: int) -> str:
    """The last error of this package, else the last error, else the last line of what a command wrote."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", _read(log, begin)) if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    # A command around another one only says that it failed.
    errors = [line for line in errors if _POINTS_UP not in line] or errors
    ours = [line.split(": ", 1)[-1] for line in errors if SIKDError.__name__ in line or line.startswith("Error: ")]
    return (ours or errors or lines or ["it wrote nothing"])[-1]

"""Run the demonstration's commands one after the other: shown, logged, timed, skipped when done."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunetv2_sikd.environment import stock_command
from nnunetv2_sikd.errors import SIKDError

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 20
_ERROR_LINE = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt)\b")


@dataclass(frozen=True)
class Step:
    """One command of nnU-Net.

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


def run_step(step: Step, number: int, count: int, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a step unless its result is there.

    Args:
        step: What to run.
        number: Its place among the steps, from 1.
        count: How many steps there are.
        folder: Where the command runs; its output goes to ``logs`` in there.
        environment: The command's environment variables.

    Raises:
        SIKDError: The command failed, or ended without its result.
    """
    print(f"\n[{number}/{count}] {step.title}")
    if step.is_done():
        print("  done before, skipped")
        return
    print(f"  $ {shlex.join(step.command)}", flush=True)
    log = folder / "logs" / f"{number:02d}_{step.name}.log"
    # Appended to: what an interrupted run wrote is worth keeping.
    with log.open("ab") as output:
        begin = output.tell()
        process = subprocess.Popen(
            [stock_command(step.command[0]), *step.command[1:]],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            code = _wait(process, step, log, begin)
        finally:
            _end(process)
    if code != 0 or not step.is_done():
        raise SIKDError(
            f"{log}: {step.command[0]} failed: {_last_meaningful_line(log, begin)}; once that is mended, "
            "run the same command again: what is done is kept"
        )


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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, as Ctrl-C does: a terminated nnU-Net leaves its workers behind."""
    if process.poll() is not None:
        return
    if os.name == "nt":
        process.terminate()
    else:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin, os.SEEK_SET)
        return file.read().decode("utf-8", "replace")


def _last_meaningful_line(log: Path, begin: int) -> str:
    """The last error of this package, else the last error, else the last line of what a command wrote."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", _read(log, begin)) if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line)]
    ours = [line.split(": ", 1)[-1] for line in errors if SIKDError.__name__ in line]
    return (ours or errors or lines or ["it wrote nothing"])[-1]

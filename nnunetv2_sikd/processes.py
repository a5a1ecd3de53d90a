"""Run nnU-Net's commands as child processes that end with their parent, workers included."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from nnunetv2_sikd.environment import stock_command

GRACE_SECONDS = 15
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def start(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start one of nnU-Net's or this package's commands in a process group of its own.

    Args:
        command: Name and arguments.
        environment: Its environment; None for this process's.
        folder: Where it runs; None for here.
        output: Where what it prints goes; None for this process's.

    Raises:
        SIKDError: It is not installed.
    """
    return subprocess.Popen(
        [stock_command(command[0]), *command[1:]],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,  # so that its workers can be ended with it
        preexec_fn=None if sys.platform == "win32" else partial(_end_with_parent, os.getpid()),
    )


def _end_with_parent(parent: int) -> None:
    """Have the child interrupted when its parent is killed: a second run must not meet a training that still runs."""
    # A script that starts this package in the background has it, and so its children, ignore interrupts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
        if os.getppid() != parent:  # killed before the line above
            os._exit(128 + signal.SIGINT)


def end(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> None:
    """End a command that still runs, as Ctrl-C does, and then whatever is left of its workers.

    A nnU-Net that is terminated, or killed, leaves its augmentation processes behind.

    Args:
        process: From :func:`start`.
        grace_seconds: How long it may take; a command that ends commands itself needs longer than those.
    """
    if sys.platform == "win32":
        # No process groups and no interrupts there; a workers' parent that is ended alone leaves them behind.
        if process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
            process.kill()  # nothing if it is gone
        process.wait()
        return
    try:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_seconds)
    finally:  # also when whoever waits here is interrupted a second time
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def as_typed(command: Sequence[str]) -> str:
    """A command as one line for this system's shell.

    Args:
        command: Name and arguments.
    """
    return subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Show a command, run it, and return its exit status; it ends when this process is interrupted.

    Args:
        command: Name and arguments.
        environment: Its environment; None for this process's.

    Raises:
        SIKDError: It is not installed.
    """
    print(f"\n$ {as_typed(command)}", flush=True)
    process = start(command, environment)
    try:
        return process.wait()
    finally:
        end(process)

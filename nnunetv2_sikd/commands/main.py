"""Entry point of ``nnUNetv2_sikd``."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import FrameType

from nnunetv2_sikd import __version__
from nnunetv2_sikd.commands import (
    average,
    benchmark,
    demo,
    doctor,
    evaluate,
    export,
    figures,
    predict,
    prepare,
    preprocess,
    report,
    stress,
    train,
)
from nnunetv2_sikd.errors import SIKDError

_COMMANDS = {
    "doctor": doctor,
    "prepare": prepare,
    "preprocess": preprocess,
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
    "figures": figures,
    "stress": stress,
    "benchmark": benchmark,
    "report": report,
    "export": export,
    "average": average,
    "demo": demo,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_sikd",
        description="Shape-intensity knowledge distillation for nnU-Net v2: trainers for teacher and student, and "
        "what they need.",
    )
    parser.add_argument("--version", action="version", version=f"nnunetv2-sikd {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").strip().splitlines()[0]
        subparser = subparsers.add_parser(name, help=summary, description=module.__doc__, parents=[common])
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Command line; None for the process's.

    Returns:
        Exit status: 0, 1 for an error told in one line, 130 when interrupted, 143 when terminated.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Windows writes to files and pipes in an old code page
    args = build_parser().parse_args(arguments)
    try:
        with _interrupted_by_termination():
            return int(args.run(args) or 0)
    except _TerminatedError:
        print("Terminated; the same command continues where this one stopped.", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("Interrupted; the same command continues where this one stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        elif isinstance(error, SIKDError):
            print(f"Error: {error}", file=sys.stderr)
        else:
            told = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"Error: {told} (--debug shows where)", file=sys.stderr)
        return 1


class _TerminatedError(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def _interrupted_by_termination() -> Iterator[None]:
    """Treat SIGTERM (Slurm, Snakemake, ``timeout``) like Ctrl-C, so that commands that were started end too."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _TerminatedError

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, which alone may do so
        yield
        return
    if hasattr(os, "register_at_fork"):
        _keep_from_workers()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _keep_from_workers() -> None:
    """Have forked workers end at SIGTERM as usual: nnU-Net's pools end theirs with it.

    With a handler of Python's, a worker that has just been forked, or waits for a lock, would miss the signal, and
    its pool would wait for it for ever.
    """

    def end_as_usual() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        unblock()

    block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGTERM})
    unblock = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, {signal.SIGTERM})
    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=end_as_usual)


if __name__ == "__main__":
    sys.exit(main())

"""Check the installation, and show the line that lets nnU-Net find the trainers.

Each finding is one line with what to do. Exit status 0: all well, 1: something must be mended.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pickle
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from nnunetv2_sikd.environment import (
    FOLDER_VARIABLES,
    TRAINER_VARIABLE,
    shadows_trainers,
    trainer_folder,
    with_trainers,
)

_MARKS = {"ok": "[ ok ]", "warning": "[warn]", "error": "[FAIL]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: ``ok``, ``warning`` or ``error``.
        text: What was found, and what to do about it.
    """

    state: str
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--checkpoint``."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="only check that these checkpoints are whole and hold nothing that loading them would execute",
    )


def run(args: argparse.Namespace) -> int:
    """Print all findings."""
    if args.checkpoint:
        return _check_checkpoints(args.checkpoint)
    print("Line for your shell (nnU-Net's own commands need it, nnUNetv2_sikd's do not):")
    print(f"  bash, zsh:   {posix_line()}")
    print(f"  PowerShell:  {powershell_line()}\n")
    worst = 0
    for finding in findings():
        print(f"{_MARKS[finding.state]} {finding.text}", flush=True)
        worst |= finding.state == "error"
    return worst


def findings() -> Iterator[Finding]:
    """All checks, cheap ones first."""
    yield from _versions()
    yield from _folders()
    yield from _variable()
    yield from _commands()
    yield from _trainers()
    yield from _device()


def _check_checkpoints(files: list[Path]) -> int:
    """Checkpoints from others, before nnU-Net loads them, which executes what they hold."""
    from nnunetv2_sikd.distillation.checkpoint import read_checkpoint
    from nnunetv2_sikd.errors import SIKDError

    worst = 0
    for file in files:
        try:
            trainer = read_checkpoint(file)["trainer_name"]
            finding = Finding("ok", f"{file}: holds weights and plain values only; of trainer {trainer!r}")
        except SIKDError as error:
            finding = Finding("error", str(error))
        print(f"{_MARKS[finding.state]} {finding.text}", flush=True)
        worst |= finding.state == "error"
    return worst


def posix_line() -> str:
    """The export line for bash and zsh; quoted for paths with blanks."""
    return f"export {TRAINER_VARIABLE}={shlex.quote(with_trainers()[TRAINER_VARIABLE])}"


def powershell_line() -> str:
    """The same for PowerShell."""
    quoted = with_trainers()[TRAINER_VARIABLE].replace("'", "''")
    return f"$env:{TRAINER_VARIABLE} = '{quoted}'"


def _versions() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    yield Finding("ok", f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for text in requires("nnunetv2-sikd") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding("error", f"{requirement.name} is not installed: pip install '{text}'")
            continue
        if requirement.specifier.contains(installed, prereleases=True):
            yield Finding("ok", f"{requirement.name} {installed}")
        else:
            yield Finding(
                "error",
                f"{requirement.name} {installed} is not supported: pip install '{text}'",
            )


def _folders() -> Iterator[Finding]:
    for variable in FOLDER_VARIABLES:
        folder = os.environ.get(variable)
        if not folder:
            yield Finding("error", f"{variable} is not set: export {variable}=/path/to/{variable}")
        elif not Path(folder).is_dir():
            yield Finding("error", f"{variable} names {folder}, which is no folder: make it (mkdir -p)")
        elif not os.access(folder, os.W_OK) and variable != "nnUNet_raw":
            yield Finding("error", f"{variable} = {folder} cannot be written: change its permissions or the variable")
        else:
            free = shutil.disk_usage(folder).free / 1e9
            advice = "" if free > 1 else ": make room before you train"
            yield Finding("warning" if advice else "ok", f"{variable} = {folder} ({free:.1f} GB free){advice}")


def _variable() -> Iterator[Finding]:
    ours = str(trainer_folder())
    listed = [path for path in os.environ.get(TRAINER_VARIABLE, "").split(os.pathsep) if path.strip()]
    wrong = [path for path in listed if path != ours and shadows_trainers(path)]
    if wrong:
        yield Finding(
            "error", f"{TRAINER_VARIABLE} lists {wrong[0]}, from where trainers cannot be pickled: use the line above"
        )
    elif ours in listed:
        yield Finding("ok", f"{TRAINER_VARIABLE} lists {ours}")
    else:
        yield Finding("warning", f"{TRAINER_VARIABLE} is not set for nnU-Net's own commands: use the line above")


def _commands() -> Iterator[Finding]:
    from nnunetv2_sikd.environment import stock_command
    from nnunetv2_sikd.errors import SIKDError

    for name in ("nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"):
        try:
            yield Finding("ok", f"{name} is {stock_command(name)}")
        except SIKDError as error:
            yield Finding("error", str(error))


def _trainers() -> Iterator[Finding]:
    """Look every shipped trainer up as nnU-Net's commands do."""
    os.environ.update(with_trainers())
    try:
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

        from nnunetv2_sikd.trainers import variants
    except Exception as error:
        yield Finding("error", f"nnU-Net or the trainers cannot be imported ({type(error).__name__}: {error})")
        return
    for name in variants.shipped_trainers():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = recursive_find_trainer_class_by_name(name)
            identical = found is getattr(variants, name) and pickle.loads(pickle.dumps(found)) is found
        except Exception as error:
            yield Finding("error", f"-tr {name}: not found ({type(error).__name__}: {error}): reinstall this package")
            continue
        if identical:
            yield Finding("ok", f"-tr {name}")
        else:
            yield Finding(
                "error", f"-tr {name}: nnU-Net finds another class (of module {found.__module__}): use the line above"
            )


def _device() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        yield Finding("ok", f"GPU {torch.cuda.get_device_name(0)} ({memory:.0f} GiB), torch {torch.__version__}")
    elif torch.backends.mps.is_available():
        yield Finding("ok", "Apple GPU: train with -device mps")
    else:
        yield Finding("warning", f"no GPU for torch {torch.__version__}: train with -device cpu (slow)")

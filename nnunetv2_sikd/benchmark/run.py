"""Run a benchmark's steps here, one after the other; done ones are skipped, cut ones continued."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep, needed_steps, without_machine
from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import only_here, write_json
from nnunetv2_sikd.steps import Step, cases_predicted, epochs_done, execute


def run_benchmark(steps: Sequence[BenchmarkStep], layout: Layout) -> None:
    """Run all steps that are not done.

    Args:
        steps: All steps, in order.
        layout: Where things are.

    Raises:
        SIKDError: A step failed, or the output folder cannot be written.
    """
    for step in steps:
        run_one(step, steps, layout)


def run_one(step: BenchmarkStep, steps: Sequence[BenchmarkStep], layout: Layout) -> None:
    """Run one step unless it is done, and keep a record of it. Two processes never run the same one at once.

    Args:
        step: The step.
        steps: All steps.
        layout: Where things are.

    Raises:
        SIKDError: It failed, it is running already, a step that it needs is not done, or the output folder cannot be
            written.
    """
    print(f"\n[{list(steps).index(step) + 1}/{len(steps)}] {step.title}")
    waiting = [other.name for other in needed_steps(step, steps) if not is_done(other, steps, layout)]
    if waiting:
        raise SIKDError(f"{layout.output}: step {step.name} needs {', '.join(waiting)}, not done yet; run that first")
    if is_done(step, steps, layout):
        print("  done before, skipped")
        return
    record = layout.record(step.name)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        running = f"{record}: another process is running this step; wait for it, or end it"
        with only_here(record.with_name(f".{record.stem}.lock"), running):
            record.unlink(missing_ok=True)
            _run(step, _finish_times(needed_steps(step, steps), layout), layout)
    except OSError as error:
        raise SIKDError(
            f"{error.filename or record}: cannot be written ({error.strerror or error}); mend that, or name another "
            "folder with -o"
        ) from error


def _run(step: BenchmarkStep, needed: Mapping[str, str | None], layout: Layout) -> None:
    record = layout.record(step.name)
    begin = time.monotonic()
    state = _state(step)  # of before: what changes meanwhile may have come too late
    others = [path for path in step.outputs if path != record]
    execute(
        Step(
            step.name,
            step.title,
            step.command,
            is_done=lambda: all(path.exists() for path in others),
            total=step.epochs,
            unit="epochs, then validation" if step.epochs else "",
            progress=epochs_done if step.epochs else cases_predicted,
        ),
        layout.output / "logs" / f"{step.name}.log",
        _environment(),
    )
    write_json(
        record,
        {
            "command": list(step.command),
            "finished": datetime.now(timezone.utc).isoformat(),
            "seconds": round(time.monotonic() - begin, 1),
            "needed": needed,
            "state": state,
        },
    )


def done_steps(steps: Sequence[BenchmarkStep], layout: Layout) -> list[str]:
    """Names of the steps that are done."""
    return [step.name for step in steps if is_done(step, steps, layout)]


def forget_outdated(steps: Sequence[BenchmarkStep], layout: Layout) -> None:
    """Remove the records of steps that have to be run again, for whoever looks only at whether they are there.

    Args:
        steps: All steps.
        layout: Where things are.
    """
    done = set(done_steps(steps, layout))
    for step in steps:
        if step.name not in done:
            layout.record(step.name).unlink(missing_ok=True)


def is_done(step: BenchmarkStep, steps: Sequence[BenchmarkStep], layout: Layout) -> bool:
    """Whether a step was run as it is now after all that it needs, and its outputs are still there.

    Another number of processes or another device makes nothing outdated.
    """
    record = _read(layout.record(step.name))
    needed = needed_steps(step, steps)
    command = record.get("command")
    return (
        isinstance(command, list)
        and without_machine(command) == without_machine(step.command)
        and record.get("needed") == _finish_times(needed, layout)
        and record.get("state") == _state(step)
        and all(path.exists() for path in step.outputs)
        and all(is_done(other, steps, layout) for other in needed)
    )


def is_of_these_settings(step: BenchmarkStep, steps: Sequence[BenchmarkStep], layout: Layout) -> bool:
    """Whether a step was last run with the settings that it has now, after the steps that it needs.

    Less than :func:`is_done`: where folders lie does not count, nor what else has changed in them.
    """
    record = _read(layout.record(step.name))
    command, needed = record.get("command"), needed_steps(step, steps)
    return (
        isinstance(command, list)
        and _settings(command) == _settings(step.command)
        and record.get("needed") == _finish_times(needed, layout)
    )


def _settings(command: Sequence[str]) -> list[str]:
    """A command with the last two names of each path: data set and folder, or test set and training."""
    parts = without_machine(map(str, command))
    return ["/".join(Path(part).parts[-2:]) if os.path.isabs(part) else part for part in parts]


def _state(step: BenchmarkStep) -> str:
    """Changes with the step's settings and with the names, sizes and times of the files that it watches."""
    digest = hashlib.sha256(step.settings.encode())
    for path in step.watched:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file() and not file.name.startswith("."):
                status = file.stat()
                digest.update(f"\0{file}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _finish_times(steps: Sequence[BenchmarkStep], layout: Layout) -> Mapping[str, str | None]:
    return {step.name: _read(layout.record(step.name)).get("finished") for step in steps}


def _read(record: Path) -> dict[str, Any]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _environment() -> dict[str, str]:
    environment = {**with_trainers(), "PYTHONUNBUFFERED": "1"}
    # Threads that sleep while they wait: on a busy CPU the default trains up to eight times slower.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment

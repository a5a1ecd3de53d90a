"""SIGKILL at random moments, then the same command again; many processes at once."""

from __future__ import annotations

import random
import re
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.faults import Job, Sandbox, half_written, kill_all, left_behind, state, wait
from nnunetv2_sikd.training import training_is_done
from tests.faults.conftest import hook, make_dataset, undisturbed_copies, write_predictions, write_student

TEACHER = "nnUNetTrainer_SIKDTeacher_seed0_2epochs_2iterations"


def kill(sandbox: Sandbox, job: Job, seconds: float) -> bool:
    """Kill a command some time after it has begun its work; whether it still ran."""
    process = sandbox.start(job)
    sandbox.wait_until_begun(job, process)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    running = process.poll() is None
    kill_all(process)
    return running


def test_hook(sandbox: Sandbox) -> None:
    dataset = make_dataset(sandbox)
    wanted = undisturbed_copies(dataset)
    moments, kills = random.Random(0), 0
    for _ in range(20):
        kills += kill(sandbox, hook(dataset), moments.uniform(0, 0.05))
        found = state(dataset.copies)
        # The image comes last: where it is, the copy is whole.
        images = [name for name in found if name.endswith(".b2nd") and not name.endswith("_seg.b2nd")]
        for image in images:
            for name in (image, image.replace(".b2nd", "_seg.b2nd"), image.replace(".b2nd", ".pkl")):
                assert found[name] == wanted[name]
        if len(images) == len(dataset.cases):
            break
    assert kills >= 3
    assert sandbox.finish(hook(dataset)) == 0, sandbox.printed()
    assert state(dataset.copies) == wanted
    assert left_behind(sandbox.run) == []


def test_export(sandbox: Sandbox) -> None:
    job = write_student(sandbox)
    assert sandbox.finish(job) == 0, sandbox.printed()
    wanted = state(sandbox.run)
    moments, kills = random.Random(0), 0
    for _ in range(6):
        (sandbox.run / "out" / "student.zip").unlink(missing_ok=True)
        kills += kill(sandbox, job, moments.uniform(0, 0.3))
        assert half_written(sandbox.run, wanted) == []
    assert kills >= 2
    sandbox.finish(job)  # done, or refused where the last kill came too late
    assert state(sandbox.run) == wanted
    assert left_behind(sandbox.run) == []


def test_evaluation(sandbox: Sandbox) -> None:
    job = write_predictions(sandbox)
    assert sandbox.finish(job) == 0, sandbox.printed()
    wanted = state(sandbox.run)
    for moment in (0.0, 0.1, 0.2, 0.4):
        for file in (sandbox.run / "out" / "evaluated").iterdir():
            file.unlink()
        kill(sandbox, job, moment)
        assert half_written(sandbox.run, wanted) == []
    assert sandbox.finish(job) == 0, sandbox.printed()
    assert state(sandbox.run) == wanted


@pytest.mark.slow
def test_training(sandbox: Sandbox) -> None:
    dataset = make_dataset(sandbox, num_cases=5)
    arguments = ("train", "-d", "901", "-f", "0", "-tr", TEACHER, "-device", "cpu", "-np", "1")
    job = Job("teacher", arguments, lambda log, _: "Epoch 1" in log, forked=True)
    assert sandbox.finish(job) == 0, sandbox.printed()
    wanted = state(sandbox.run)
    fold = sandbox.run / "results" / dataset.name / f"{TEACHER}__nnUNetPlans__2d" / "fold_0"
    subprocess.run(["rm", "-r", str(fold.parent), str(dataset.copies)], check=True)

    assert kill(sandbox, job, 0)
    assert (fold / "checkpoint_latest.pth").is_file()
    assert half_written(sandbox.run, wanted) == []
    assert sandbox.finish(job) == 0, sandbox.printed()
    # From the last checkpoint, and not from the beginning.
    assert re.findall(r"Epoch (\d+)", sandbox.printed()) == ["1"]
    assert state(sandbox.run) == wanted


def test_half_a_summary_is_no_finished_training(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    (tmp_path / "checkpoint_final.pth").touch()
    summary = tmp_path / "validation" / "summary.json"
    summary.write_text('{"mean": {"1": {"Dice"')
    assert not training_is_done(tmp_path)
    summary.write_text('{"mean": {}}')
    assert training_is_done(tmp_path)


def test_eight_hooks_at_once(sandbox: Sandbox) -> None:
    dataset = make_dataset(sandbox)
    wanted = undisturbed_copies(dataset)
    logs = [sandbox.folder / f"log_{number}.txt" for number in range(8)]
    started = [sandbox.start(hook(dataset), log) for log in logs]
    for process, log in zip(started, logs, strict=True):
        assert wait(process) == 0, sandbox.printed(log)
    assert state(dataset.copies) == wanted
    assert sum(f"{len(dataset.cases)} written" in sandbox.printed(log) for log in logs) == 1


def test_eight_exports_at_once(sandbox: Sandbox) -> None:
    job = write_student(sandbox)
    logs = [sandbox.folder / f"log_{number}.txt" for number in range(8)]
    started = [sandbox.start(job, log) for log in logs]
    statuses = [wait(process) for process in started]
    assert sorted(map(str, statuses)) == ["0"] + 7 * ["1"]
    for status, log in zip(statuses, logs, strict=True):
        assert status == 0 or re.search(r"^Error: .*(another process is writing it|exists)", sandbox.printed(log), re.M)
    assert left_behind(sandbox.run) == []

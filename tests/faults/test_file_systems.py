"""A disk that is full, read-only or gone in the middle; then mended, and the same command again."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.faults import Disk, Job, Sandbox, error_line, state, wait
from nnunetv2_sikd.errors import SIKDError
from tests.faults.conftest import hook, make_dataset, undisturbed_copies, write_predictions, write_student
from tests.helpers import PreprocessedDataset
from tests.trainers.conftest import TEACHER, MakeTrainer, finish, make_trainer  # noqa: F401

COMMANDS: dict[str, Callable[[Sandbox], Job]] = {
    "preprocess": lambda sandbox: hook(make_dataset(sandbox)),
    "export": write_student,
    "evaluate": write_predictions,
}


def refusal(sandbox: Sandbox, code: int | None) -> str:
    """The one line that a failed command printed for its user."""
    printed = sandbox.printed()
    assert code == 1, printed
    assert "Traceback" not in printed
    assert error_line(printed).startswith("Error: "), printed
    return error_line(printed)


@pytest.mark.parametrize("command", COMMANDS)
def test_full(sandbox: Sandbox, disk: Disk, command: str) -> None:
    job = COMMANDS[command](sandbox)
    disk.resize(disk.used() + 4096 * (3 if command == "evaluate" else 24))
    told = refusal(sandbox, sandbox.finish(job))
    assert "cannot be written" in told
    disk.resize(2**30)
    assert sandbox.finish(job) == 0, sandbox.printed()
    if command == "preprocess":
        found = state(sandbox.run / "preprocessed")
        assert sum("SIKD_per_slice/" in name and name.endswith(".pkl") for name in found) == 25


@pytest.mark.parametrize("command", COMMANDS)
def test_read_only(sandbox: Sandbox, disk: Disk, command: str) -> None:
    job = COMMANDS[command](sandbox)
    before = state(sandbox.run)
    disk.remount("ro")
    told = refusal(sandbox, sandbox.finish(job))
    assert "cannot be written" in told
    disk.remount("rw")
    assert state(sandbox.run) == before
    assert sandbox.finish(job) == 0, sandbox.printed()
    if command == "preprocess":  # what is done needs no writing
        disk.remount("ro")
        assert sandbox.finish(job) == 0, sandbox.printed()


def test_gone(sandbox: Sandbox, disk: Disk) -> None:
    dataset = make_dataset(sandbox)
    wanted = undisturbed_copies(dataset)
    process = sandbox.start(hook(dataset))
    assert sandbox.wait_until_begun(hook(dataset), process)
    disk.detach()
    refusal(sandbox, wait(process))
    assert list(sandbox.run.iterdir()) == []  # nothing written where the file system was
    disk.attach()
    assert sandbox.finish(hook(dataset)) == 0, sandbox.printed()
    assert state(dataset.copies) == wanted


def test_no_room_for_a_checkpoint(dataset_2d: PreprocessedDataset, make_trainer: MakeTrainer) -> None:  # noqa: F811
    trainer = make_trainer(dataset_2d, TEACHER)
    trainer.initialize()
    file = finish(trainer)
    before = file.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(SIKDError, match=r"checkpoint_final\.pth: cannot be written .* continue with --c"):
            finish(trainer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_bytes() == before
    assert [path.name for path in Path(trainer.output_folder).glob("checkpoint*")] == [file.name]

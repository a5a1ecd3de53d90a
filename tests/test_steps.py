"""Steps: their progress from the log, and the line that tells why one failed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nnunetv2_sikd import processes
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.steps import Step, cases_predicted, epochs_done, execute


@pytest.fixture(autouse=True)
def _any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stock_command", lambda name: name)


def step_of(code: str, *, done: bool = True) -> Step:
    return Step("name", "Title", [sys.executable, "-c", code], lambda: done)


def why(code: str, folder: Path, *, done: bool = True) -> str:
    with pytest.raises(SIKDError) as raised:
        execute(step_of(code, done=done), folder / "logs" / "step.log", dict(os.environ))
    message = str(raised.value)
    assert message.startswith(f"{folder / 'logs' / 'step.log'}: {sys.executable} ")
    assert message.endswith("; once that is mended, run the same command again: what is done is kept")
    return message.removeprefix(f"{folder / 'logs' / 'step.log'}: {sys.executable} ").split("; once")[0]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise ValueError('no such thing')", "failed (exit status 1): ValueError: no such thing"),
        ("print('Error: a.json: not there'); raise SystemExit(1)", "failed (exit status 1): a.json: not there"),
        # What this package says comes before what nnU-Net's workers say after it.
        (
            "print('nnunetv2_sikd.errors.SIKDError: x: bad'); raise RuntimeError('workers are no longer alive')",
            "failed (exit status 1): x: bad",
        ),
        # A command around another one only says that it failed: the other's reason is told.
        (
            "print('torch.OutOfMemoryError: CUDA'); print('Error: f: training failed (see above)'); exit(1)",
            "failed (exit status 1): torch.OutOfMemoryError: CUDA",
        ),
        ("print('Error: f: training failed (see above)'); exit(1)", "failed (exit status 1): f: training failed (see "),
        ("print('a'); print('last words'); exit(2)", "failed (exit status 2): last words"),
        ("exit(2)", "failed (exit status 2): it wrote nothing"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9 (out of memory?): it wrote nothing"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by signal 15: it wrote nothing"),
    ],
)
def test_reason_of_a_failure(code: str, expected: str, tmp_path: Path) -> None:
    assert why(code, tmp_path).startswith(expected)


def test_command_without_its_result(tmp_path: Path) -> None:
    assert why("print('fine')", tmp_path, done=False) == "ended without its result: fine"


def test_log_is_kept_and_only_its_new_part_told(tmp_path: Path) -> None:
    assert "first" in why("raise ValueError('first')", tmp_path)
    assert "it wrote nothing" in why("exit(1)", tmp_path)
    assert "first" in (tmp_path / "logs" / "step.log").read_text()


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(SIKDError, match=r"step\.log: cannot be written"):
        execute(step_of(""), tmp_path / "logs" / "step.log", dict(os.environ))


@pytest.mark.parametrize(
    ("log", "epochs"),
    [
        ("", 0),
        ("Epoch 0\nEpoch time: 12.3 s\n", 0),
        ("Epoch 0\n...\nEpoch 1\n", 1),
        ("Epoch 7\n", 7),  # continued
        ("Epoch 0\nEpoch 1\nTraining done.\n", 2),
    ],
)
def test_epochs_done(log: str, epochs: int) -> None:
    assert epochs_done(log) == epochs


def test_cases_predicted() -> None:
    assert cases_predicted("Predicting a:\n\ndone with a\nPredicting b:\n\ndone with b\nPredicting c") == 2

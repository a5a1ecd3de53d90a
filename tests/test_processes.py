"""Commands end with whoever started them, and so do their workers: tried with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnunetv2_sikd import processes
from nnunetv2_sikd.errors import SIKDError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
_PATIENCE = 30

# A command with a worker in its own process group, as nnU-Net's augmentation processes are. Both write their ids.
COMMAND = """
import os, signal, subprocess, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".tmp", "w") as ids:
    ids.write(f"{os.getpid()} {worker.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(600)
"""
# A parent that runs it as this package does: the command line, whose subcommand is exchanged.
PARENT = """
import os, sys
from nnunetv2_sikd import processes
from nnunetv2_sikd.commands import doctor, main
processes.stock_command = lambda name: name
processes.GRACE_SECONDS = 1
doctor.run = lambda args: processes.run([sys.executable, *sys.argv[1:]])
sys.exit(main.main(["doctor"]))
"""

Start = Callable[..., tuple[subprocess.Popen[str], list[int]]]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a container without an init leaves ended orphans as zombies


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start parent, command and worker; returns the parent and the ids of the others."""
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "parent.py").write_text(PARENT)
    started: list[subprocess.Popen[str]] = []
    others: list[int] = []

    def start(*options: str, background: bool = False) -> tuple[subprocess.Popen[str], list[int]]:
        ids = tmp_path / "ids"
        command = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "command.py"), str(ids), *options]
        started.append(
            subprocess.Popen(
                command,
                stderr=subprocess.PIPE,
                text=True,
                # what a shell script's & does, also to these tests if they run in the background of one
                preexec_fn=lambda: (
                    signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.SIG_DFL) and None
                ),
            )
        )
        assert wait_for(ids.exists)
        others.extend(map(int, ids.read_text().split()))
        return started[-1], others

    yield start
    for pid in [*(process.pid for process in started if process.poll() is None), *filter(is_alive, others)]:
        os.kill(pid, signal.SIGKILL)
    for process in started:
        process.communicate()


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "Interrupted; the same command"), (signal.SIGTERM, 143, "Terminated; the same command")],
)
def test_interrupted_or_terminated(start: Start, number: int, status: int, said: str) -> None:
    parent, others = start()
    assert all(map(is_alive, others))
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=_PATIENCE)
    assert parent.returncode == status
    assert [line for line in errors.splitlines() if "the same command" in line] == [
        f"{said} continues where this one stopped."
    ]
    assert wait_for(lambda: not any(map(is_alive, others)))


def test_killed_parent(start: Start) -> None:
    parent, others = start()
    parent.kill()
    assert wait_for(lambda: not is_alive(others[0]))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_started_in_the_background_of_a_script(start: Start, number: int) -> None:
    """There interrupts are ignored, and children inherit that."""
    parent, others = start(background=True)
    parent.send_signal(number)
    assert wait_for(lambda: not is_alive(others[0]))


def test_command_that_does_not_end_when_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stock_command", lambda name: name)
    (tmp_path / "command.py").write_text(COMMAND)
    process = processes.start([sys.executable, str(tmp_path / "command.py"), str(tmp_path / "ids"), "deaf"])
    assert wait_for((tmp_path / "ids").exists)
    others = [int(pid) for pid in (tmp_path / "ids").read_text().split()]
    processes.end(process, grace_seconds=0.2)
    assert process.returncode == -signal.SIGKILL
    assert wait_for(lambda: not any(map(is_alive, others)))


def test_workers_left_by_a_command_that_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stock_command", lambda name: name)
    (tmp_path / "command.py").write_text(COMMAND.replace("\ntime.sleep(600)\n", "\nos._exit(3)\n"))
    assert processes.run([sys.executable, str(tmp_path / "command.py"), str(tmp_path / "ids")]) == 3
    others = [int(pid) for pid in (tmp_path / "ids").read_text().split()]
    assert wait_for(lambda: not any(map(is_alive, others)))


def test_second_interruption_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stock_command", lambda name: name)
    (tmp_path / "command.py").write_text(COMMAND)
    process = processes.start([sys.executable, str(tmp_path / "command.py"), str(tmp_path / "ids"), "deaf"])
    assert wait_for((tmp_path / "ids").exists)

    def interrupted(timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        processes.end(process)
    assert process.returncode == -signal.SIGKILL


def test_environment_folder_and_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "stock_command", lambda name: name)
    code = "import os, sys; print(os.getcwd(), os.environ['SAID']); print('bad', file=sys.stderr)"
    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "SAID": "hello"}
        process = processes.start([sys.executable, "-c", code], environment, folder=tmp_path, output=log)
        assert process.wait() == 0
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted([f"{tmp_path} hello", "bad"])


def test_command_that_is_not_installed() -> None:
    with pytest.raises(SIKDError, match="nnUNetv2_nothing is not installed"):
        processes.run(["nnUNetv2_nothing"])

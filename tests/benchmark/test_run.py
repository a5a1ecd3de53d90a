"""What is done is skipped, and nothing else: commands are stood in for by a short script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_sikd import processes
from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep
from nnunetv2_sikd.benchmark.run import done_steps, forget_outdated, run_benchmark, run_one
from nnunetv2_sikd.errors import SIKDError
from tests.benchmark.helpers import layout_of, write_both

# Notes its arguments, makes the files that it is given, and ends as it is told.
SCRIPT = """
import pathlib, sys
name, status, *files = sys.argv[1:]
if pathlib.Path("fails").exists():
    status = "1"
with open("calls.txt", "a") as calls:
    calls.write(name + "\\n")
for file in files[:1]:  # the rest are options
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(file).write_text(name)
print("ValueError: no such thing" if int(status) else "fine")
sys.exit(int(status))
"""


class Chain:
    """Three steps: ``first`` makes a file for ``second``, ``second`` for ``third``; ``copies`` makes its record."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder, layout
        self.script = folder / "script.py"
        self.script.write_text(SCRIPT)
        self.status = {"first": 0, "second": 0, "third": 0}
        self.extra: dict[str, str] = {}
        self.options: tuple[str, ...] = ()
        self.settings = ""
        self.watched = folder / "references"
        self.watched.mkdir()

    def steps(self) -> list[BenchmarkStep]:
        made = {name: (self.folder / f"{name}.out",) for name in self.status}
        made["second"] = (*made["second"], self.layout.record("second"))  # as the step of the copies has it
        needed: dict[str, tuple[Path, ...]] = {"first": (), "second": made["first"], "third": made["second"]}
        return [
            BenchmarkStep(
                name,
                name.title(),
                (
                    *(str(self.script), name + self.extra.get(name, ""), str(self.status[name]), str(made[name][0])),
                    *self.options,
                ),
                needed[name],
                made[name],
                watched=(self.watched,) if name == "second" else (),
                settings=self.settings if name == "third" else "",
            )
            for name in self.status
        ]

    def run(self) -> list[str]:
        """Run all steps; the names of those that ran."""
        calls = self.folder / "calls.txt"
        calls.unlink(missing_ok=True)
        run_benchmark(self.steps(), self.layout)
        return calls.read_text().split() if calls.exists() else []

    def record(self, name: str) -> dict[str, object]:
        return json.loads(self.layout.record(name).read_text())


@pytest.fixture
def chain(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Chain:
    write_both(nnunet_folders)
    monkeypatch.chdir(nnunet_folders)

    def with_python(script: str) -> str:
        launcher = nnunet_folders / "launcher.sh"
        launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        launcher.chmod(0o755)
        return str(launcher)

    monkeypatch.setattr(processes, "stock_command", with_python)
    return Chain(nnunet_folders, layout_of(nnunet_folders))


def test_steps_run_once(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    assert chain.run() == ["first", "second", "third"]
    capsys.readouterr()
    assert chain.run() == []
    assert capsys.readouterr().out.count("done before, skipped") == 3
    assert done_steps(chain.steps(), chain.layout) == ["first", "second", "third"]
    record = chain.record("third")
    assert record["command"] == list(chain.steps()[2].command)
    assert record["needed"] == {"second": chain.record("second")["finished"]}


def test_changed_command_runs_again_with_all_that_follow(chain: Chain) -> None:
    chain.run()
    chain.extra["second"] = "-changed"
    assert done_steps(chain.steps(), chain.layout) == ["first"]
    assert chain.run() == ["second-changed", "third"]
    assert chain.run() == []


def test_another_machine_outdates_nothing(chain: Chain) -> None:
    chain.options = ("-np", "2", "-device", "cpu", "--slices")
    chain.run()
    record = chain.record("first")
    assert record["command"] == list(chain.steps()[0].command)  # whole, as records of earlier versions have it
    chain.options = ("--slices", "-device", "cuda", "-np", "4")
    assert done_steps(chain.steps(), chain.layout) == ["first", "second", "third"]
    assert chain.run() == []
    assert chain.record("first") == record
    chain.options = ("-np", "4", "-device", "cuda")
    assert chain.run() == ["first", "second", "third"]


def test_changed_settings_run_again(chain: Chain) -> None:
    chain.run()
    chain.settings = "another margin"
    assert chain.run() == ["third"]
    assert chain.run() == []


def test_changed_files_run_again_with_all_that_follow(chain: Chain) -> None:
    chain.run()
    (chain.watched / "case.nii.gz").write_text("reference")
    assert chain.run() == ["second", "third"]
    (chain.watched / "case.nii.gz").write_text("corrected reference")
    assert chain.run() == ["second", "third"]
    (chain.watched / ".hidden").write_text("")
    assert chain.run() == []


def test_lost_output_is_made_again(chain: Chain) -> None:
    chain.run()
    (chain.folder / "second.out").unlink()
    assert chain.run() == ["second", "third"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"command": "x"}'])
def test_damaged_record_counts_for_nothing(chain: Chain, content: str) -> None:
    chain.run()
    chain.layout.record("first").write_text(content)
    assert chain.run() == ["first", "second", "third"]


def test_a_step_that_was_run_by_itself_outdates_the_next(chain: Chain) -> None:
    chain.run()
    chain.layout.record("first").unlink()
    run_one(chain.steps()[0], chain.steps(), chain.layout)
    assert done_steps(chain.steps(), chain.layout) == ["first"]
    assert chain.run() == ["second", "third"]


def test_failure_ends_the_benchmark_and_is_run_again(chain: Chain) -> None:
    chain.status["second"] = 3
    with pytest.raises(SIKDError) as raised:
        chain.run()
    log = chain.layout.output / "logs" / "second.log"
    assert str(raised.value).startswith(f"{log}: {chain.script} failed (exit status 3): ValueError: no such thing;")
    assert not chain.layout.record("second").exists()
    chain.status["second"] = 0
    assert chain.run() == ["second", "third"]


def test_failed_rerun_takes_the_record_away(chain: Chain) -> None:
    chain.run()
    (chain.folder / "first.out").unlink()
    (chain.folder / "fails").touch()
    with pytest.raises(SIKDError):
        chain.run()
    assert (chain.folder / "first.out").exists()  # half of it, for all we know
    assert done_steps(chain.steps(), chain.layout) == []


def test_command_that_makes_nothing_has_failed(chain: Chain) -> None:
    steps = chain.steps()
    broken = BenchmarkStep("first", "First", steps[0].command[:-1], (), steps[0].outputs)
    with pytest.raises(SIKDError, match=r"ended without its result: fine; once that is mended"):
        run_one(broken, [broken], chain.layout)


def test_a_step_waits_for_what_it_needs(chain: Chain) -> None:
    with pytest.raises(SIKDError, match="step third needs second, not done yet"):
        run_one(chain.steps()[2], chain.steps(), chain.layout)


def test_two_processes_never_run_one_step(chain: Chain) -> None:
    record = chain.layout.record("first")
    record.parent.mkdir(parents=True)
    code = (
        "import sys, time; from filelock import FileLock; lock = FileLock(sys.argv[1]); lock.acquire(); "
        "print('held', flush=True); time.sleep(60)"
    )
    lock = str(record.with_name(".first.lock"))
    other = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(SIKDError, match="another process is running this step"):
            chain.run()
    finally:
        other.kill()
        other.wait()
    assert chain.run() == ["first", "second", "third"]


def test_output_that_cannot_be_written(chain: Chain) -> None:
    chain.layout.output.write_text("a file")
    with pytest.raises(SIKDError, match="cannot be written"):
        chain.run()


def test_forget_outdated_keeps_what_is_done(chain: Chain) -> None:
    chain.run()
    (chain.folder / "third.out").unlink()
    forget_outdated(chain.steps(), chain.layout)
    assert [chain.layout.record(name).exists() for name in ("first", "second", "third")] == [True, True, False]


@pytest.mark.parametrize("loses", ["first.out", "second.out"])
def test_forgetting_spreads_downwards(chain: Chain, loses: str) -> None:
    chain.run()
    (chain.folder / loses).unlink()
    forget_outdated(chain.steps(), chain.layout)
    assert not chain.layout.record("third").exists()

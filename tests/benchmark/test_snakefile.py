"""The packaged Snakefile, run by Snakemake itself two jobs of two cores at once; what the steps run is stood in for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import pytest

from nnunetv2_sikd.benchmark import run
from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.plan import BenchmarkStep, Machine, needed_steps, plan_steps
from nnunetv2_sikd.benchmark.run import run_one
from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.steps import Step
from tests.benchmark.helpers import SOURCE, TARGET, layout_of, write_both
from tests.helpers import make_plans

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("snakemake") is None, reason="pip install 'nnunetv2-sikd[cluster]'"),
    pytest.mark.slow,
]

# First on the PATH as nnUNetv2_sikd. It is called as "... --only STEP" and has this test's process run the step, which
# has everything imported.
FAKE = """#!{python}
import sys
from multiprocessing.connection import Client

with Client({address!r}) as test:
    test.send(sys.argv[sys.argv.index("--only") + 1])
    sys.exit(test.recv())
"""


class Cluster:
    """A benchmark, and Snakemake to run it.

    Steps are run and recorded as the command does it; in place of what they execute their outputs are made at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.layout = folder, layout_of(folder, arms={"stock": "nnUNetTrainer", "da5": "nnUNetTrainerDA5"})
        self.steps: list[BenchmarkStep] = plan_steps(self.layout, str(folder / "tiny.yaml"), Machine("cpu"))
        (folder / "bin").mkdir()
        plans = folder / "preprocessed" / SOURCE / "nnUNetPlans.json"
        plans.parent.mkdir()
        plans.write_text(json.dumps(make_plans(SOURCE)))
        (plans.parent / "dataset.json").write_text(json.dumps(self.layout.dataset_json(SOURCE)))
        fake = folder / "bin" / "nnUNetv2_sikd"
        self._jobs = Listener(family="AF_UNIX")
        fake.write_text(FAKE.format(python=sys.executable, address=self._jobs.address))
        fake.chmod(0o755)

        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            threading.Thread(target=self._answer, args=(self._jobs.accept(),), daemon=True).start()

    def _answer(self, job: Connection) -> None:
        with job:
            name = job.recv()
            try:
                run_one(next(step for step in self.steps if step.name == name), self.steps, self.layout)
            except SIKDError as error:
                job.send(f"Error: {error}")
            else:
                job.send(None)

    def execute(self, step: Step, log: Path, environment: object) -> None:
        """Make the step's outputs; note when it began and ended, and fail where a file asks for it."""
        begin = time.time()
        if (self.folder / f"fail_{step.name}").exists():
            raise SIKDError("asked to fail")
        time.sleep(0.7 if step.name.startswith("predict") else 0.1)
        planned = next(each for each in self.steps if each.name == step.name)
        for file in set(planned.outputs) - {self.layout.record(step.name)}:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        with (self.folder / "calls.txt").open("a") as calls:
            calls.write(f"{step.name} {begin} {time.time()}\n")

    def run(self, *options: str, **config: str) -> tuple[int, str]:
        """Run Snakemake; returns its exit status and what it printed."""
        config = {"benchmark": str(self.folder / "tiny.yaml"), "output": str(self.layout.output), **config}
        command = [sys.executable, "-m", "snakemake", "-s", str(snakefile()), "--cores", "4", *options, "--config"]
        done = subprocess.run(
            [*command, "device=cpu", *(f"{key}={value}" for key, value in config.items())],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout

    def calls(self) -> dict[str, tuple[float, float]]:
        """When each step began and ended, since the last time this was asked."""
        file = self.folder / "calls.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        assert len({line.split()[0] for line in lines}) == len(lines)
        return {name: (float(begin), float(end)) for name, begin, end in map(str.split, lines)}


def snakefile() -> Path:
    return Path(str(sys.modules[Layout.__module__].__file__)).with_name("Snakefile")


@pytest.fixture
def cluster(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    write_both(nnunet_folders)
    cluster = Cluster(nnunet_folders)
    monkeypatch.setattr(run, "execute", cluster.execute)
    return cluster


def test_the_command_says_where_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "cardiac_small", "--snakefile"]) == 0
    assert Path(capsys.readouterr().out.strip()) == snakefile()
    assert snakefile().is_file()


def test_order_two_at_once_and_nothing_twice(cluster: Cluster) -> None:
    status, printed = cluster.run()
    assert status == 0, printed
    calls = cluster.calls()
    assert set(calls) == {step.name for step in cluster.steps}
    for step in cluster.steps:
        for other in needed_steps(step, cluster.steps):
            assert calls[other.name][1] <= calls[step.name][0], (other.name, step.name)
    spans = list(calls.values())
    assert any(a[0] < b[0] < a[1] for a in spans for b in spans)

    assert cluster.run()[0] == 0
    assert cluster.calls() == {}
    # What was made and is gone is made again, with what follows.
    (cluster.layout.output / "evaluation" / "own" / "da5_seed0_fold0" / "metrics.csv").unlink()
    status, printed = cluster.run()
    assert status == 0, printed
    assert set(cluster.calls()) == {"evaluate_own_da5_seed0_fold0", "report"}


def test_other_processes_or_arms_run_nothing_twice(cluster: Cluster) -> None:
    assert cluster.run()[0] == 0
    assert set(cluster.calls()) == {step.name for step in cluster.steps}
    status, printed = cluster.run(processes="4", memory_mb="16000")
    assert status == 0, printed
    assert cluster.calls() == {}
    status, printed = cluster.run(arms="stock")
    assert status == 0, printed
    assert set(cluster.calls()) == {"report"}


def test_failed_job_is_continued(cluster: Cluster) -> None:
    failing = "train_nnUNetTrainerDA5_seed0_2epochs_3iterations_fold0"
    (cluster.folder / f"fail_{failing}").touch()
    status, printed = cluster.run("--keep-going")
    assert status != 0
    assert "asked to fail" in printed
    done = set(cluster.calls())
    assert "evaluate_own_stock_seed0_fold0" in done
    assert not any("da5" in name or name in (failing, "report") for name in done)
    (cluster.folder / f"fail_{failing}").unlink()
    status, printed = cluster.run()
    assert status == 0, printed
    assert set(cluster.calls()) == {step.name for step in cluster.steps} - done


def test_what_is_wrong_is_one_line(cluster: Cluster) -> None:
    def told(**config: str) -> str:
        status, printed = cluster.run(**config)
        assert status != 0
        assert cluster.calls() == {}
        lines = [line for line in printed.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, printed
        return lines[0]

    assert "--config folds=all: must be whole numbers" in told(folds="all")
    (cluster.folder / "raw" / TARGET / "labelsTs" / "b.nii.gz").unlink()
    assert "tiny.yaml, test set other: " in told()

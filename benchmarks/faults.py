"""Faults done to real commands: killed, out of disk space, read-only, folder gone, worker killed, eight at once.

    python benchmarks/faults.py --work /tmp/faults [--kills 100] [--seed 0] [--only kills full ...] [--json faults.json]

A tiny data set (the demo's), trainers with a seed, the CPU. Each command runs undisturbed once; then it is disturbed,
the same command is given again, and every file is compared with the undisturbed run's. Needs psutil; the faults of
file systems need Linux and the right to mount (root, or ``unshare -Urm``). The full run takes about half an hour on two
cores. Ends with status 1 if any end state differs.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from nnunetv2_sikd.demo.dataset import SOURCE, TARGET, write_datasets
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import FOLDER_VARIABLES, stock_command, with_trainers
from nnunetv2_sikd.preprocessing.stored import open_array

EPOCHS, ITERATIONS = 3, 2
SCHEDULE = f"seed0_{EPOCHS}epochs_{ITERATIONS}iterations"
TEACHER, STUDENT = f"nnUNetTrainer_SIKDTeacher_{SCHEDULE}", f"nnUNetTrainer_SIKDStudent_{SCHEDULE}"
CONFIGURATION = "2d_tiny"
TINY = {"patch_size": [64, 64], "batch_size": 2, "features_per_stage": [8, 16, 24]}
NUM_TRAINING, NUM_TEST = 20, 3  # of the demo's
HANGS_AFTER_SECONDS = 1200
SPECIFICATION = f"""\
title: Faults
source: {{ dataset: 901, configuration: {CONFIGURATION}, derive: {json.dumps({"from": "2d", **TINY})} }}
tests: [{{ key: target, dataset: 902 }}]
arms: {{ stock: nnUNetTrainer, sikd: nnUNetTrainer_SIKDStudent }}
schedule: {{ epochs: {EPOCHS}, iterations: {ITERATIONS} }}
seeds: [0]
"""
# Files that must be there and cannot be equal, and why.
UNEQUAL = {
    "training_log_*.txt": "one per session, with times",
    "debug.json": "memory addresses of objects",
    "progress*.png": "shows seconds per epoch",
    "network_architecture*": "carries a date, and is there only where graphviz is",
    "training_cost.json": "times and memory",
    "prediction_cost.json": "times and memory",
    "predicted_with.json": "names the folders of model and images",
    "checkpoint_best.pth": "nnU-Net may take another epoch for the best after --c (docs/explanation.md)",
    "logs/*": "what was printed",
    "steps/*.json": "times",
    "report/report.*": "tells times",
    "report/trainings.csv": "tells times",
    "report/pictures/*": "carry identifiers drawn anew",
    "sikd_provenance.json": "holds the teacher's Dice, measured on other validation patches after --c",
    "*.lock": "empty, for locks",
}
# Hidden files that a kill may leave: never read, counted.
LEFT_BEHIND = (".partial_*", "*.tmp", ".*.export", ".split_*")


# ------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class Job:
    """One command of a user.

    Attributes:
        name: Short.
        arguments: Of ``nnUNetv2_sikd``.
        begun: Whether it is past its start-up, from what it printed and the folder it works in.
        forked: Whether it runs in a fork of a process that has imported the package, since its start-up would be most
            of its time; what it starts itself starts as usual. Otherwise it is started as a user does.
    """

    name: str
    arguments: tuple[str, ...]
    begun: Callable[[str, Path], bool]
    forked: bool = False


def jobs(run: Path) -> dict[str, Job]:
    """The commands, in the order in which they need each other; ``benchmark`` needs the raw data only."""
    data = ("-d", "901", "-c", CONFIGURATION)
    out, target = run / "out", run / "raw" / TARGET
    predicted, cpu = out / "predicted", ("-device", "cpu", "-np", "1")
    labels = ("-djfile", str(run / "raw" / SOURCE / "dataset.json"))

    def printed(pattern: str) -> Callable[[str, Path], bool]:
        return lambda log, _: re.search(pattern, log) is not None

    def train(name: str, trainer: str) -> Job:
        arguments = ("train", *data, "-f", "0", "-tr", trainer, *cpu)
        return Job(name, arguments, printed(r"Epoch \d|predicting|This is the configuration"), True)

    listed = [
        Job("prepare", ("prepare", *data, "--base", "2d", *derivation(), "-np", "1"), printed(r"\$ nnUNetv2")),
        Job("preprocess", ("preprocess", *data, "-np", "1"), lambda _, run: any(copies(run).glob("*")), True),
        train("teacher", TEACHER),
        train("student", STUDENT),
        Job(
            "export",
            ("export", *data, "-f", "0", "-tr", STUDENT, "-o", str(out / "student.zip")),
            lambda _, run: any((run / "out").glob(".*")),
            forked=True,
        ),
        Job(
            "predict",
            ("predict", "-i", str(target / "imagesTs"), "-o", str(predicted), *data, "-f", "0", "-tr", STUDENT, *cpu),
            printed("Predicting"),
            forked=True,
        ),
        Job(
            "evaluate",
            ("evaluate", str(target / "labelsTs"), str(predicted), "-o", str(out / "evaluated"), *labels, "-np", "1"),
            printed("Evaluation"),
            forked=True,
        ),
        Job(
            "benchmark",
            ("benchmark", str(run / "raw" / "faults.yaml"), "-o", str(out / "benchmark"), *cpu),
            printed(r"\["),
        ),
    ]
    return {job.name: job for job in listed}


def derivation() -> Iterator[str]:
    for key, value in TINY.items():
        yield f"--{key}"
        yield from map(str, value if isinstance(value, list) else [value])


def copies(run: Path) -> Path:
    return run / "preprocessed" / SOURCE / "nnUNetPlans_2d_SIKD_per_slice"


def fold(run: Path, trainer: str, number: int = 0) -> Path:
    return run / "results" / SOURCE / f"{trainer}__nnUNetPlans__{CONFIGURATION}" / f"fold_{number}"


class Forked:
    """``nnUNetv2_sikd`` in a process group of its own, forked from a server that has imported it; used like a Popen.

    Args:
        arguments: Of the command.
        environment: Its environment.
        log: Where its output goes.
        folder: Where it runs.
    """

    def __init__(self, arguments: Sequence[str], environment: dict[str, str], log: Path, folder: Path) -> None:
        log.write_bytes(b"")
        context = multiprocessing.get_context("forkserver")
        os.environ.update(environment)  # nnU-Net reads some of it when it is imported
        context.set_forkserver_preload(
            [f"nnunetv2_sikd.{name}" for name in ("commands.main", "training", "prediction", "export", "evaluation")]
        )
        self.process = context.Process(target=run_here, args=(arguments, environment, log, folder))
        self.process.start()
        self.pid, self.kill = self.process.pid, self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("nnUNetv2_sikd", timeout or 0)
        return self.process.exitcode


def run_here(arguments: Sequence[str], environment: dict[str, str], log: Path, folder: Path) -> None:
    """Become ``nnUNetv2_sikd``."""
    from nnunetv2_sikd.commands.main import main

    os.setsid()
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(folder)
    os.environ.update(environment)
    status = main(arguments)
    sys.stdout.flush()
    sys.exit(status)


Process = subprocess.Popen[bytes] | Forked


class Sandbox:
    """nnU-Net's folders and an output folder in ``run``, put back to any earlier state.

    Args:
        folder: Existing folder for everything.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder.resolve(), folder.resolve() / "run"
        self.run.mkdir(exist_ok=True)
        self.log = self.folder / "log.txt"
        names = zip(FOLDER_VARIABLES, ("raw", "preprocessed", "results"), strict=True)
        self.environment = {
            **with_trainers(),
            "PYTHONPATH": str(Path(__file__).parents[1]),  # the package beside this file
            **{variable: str(self.run / name) for variable, name in names},
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "1",
            "nnUNet_SIKD_force_teacher": "1",  # this teacher trains for seconds
            "OMP_WAIT_POLICY": "PASSIVE",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def write_raw(self) -> None:
        for name in ("raw", "preprocessed", "results", "out"):
            (self.run / name).mkdir()
        write_datasets(self.run / "raw")
        for file in (self.run / "raw").glob("*/*T[rs]/*"):
            if int(file.name.split("_")[1][:3]) >= (NUM_TEST if file.parent.name.endswith("Ts") else NUM_TRAINING):
                file.unlink()
        for file in (self.run / "raw").glob("*/dataset.json"):
            file.write_text(file.read_text().replace('"numTraining": 50', f'"numTraining": {NUM_TRAINING}'))
        (self.run / "raw" / "faults.yaml").write_text(SPECIFICATION)

    def save(self, name: str) -> None:
        self._copy(self.run, self.folder / "saved" / name)

    def reset(self, name: str) -> None:
        self._copy(self.folder / "saved" / name, self.run)

    def _copy(self, source: Path, target: Path) -> None:
        """Times and hard links included; the target itself stays, since it may be a mount point."""
        target.mkdir(parents=True, exist_ok=True)
        for path in target.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)

    def start(self, job: Job, log: Path | None = None, **variables: str) -> Process:
        if job.forked:
            return Forked(job.arguments, {**self.environment, **variables}, log or self.log, self.folder)
        with (log or self.log).open("wb") as output:
            return subprocess.Popen(
                [stock_command("nnUNetv2_sikd"), *job.arguments],
                env={**self.environment, **variables},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def printed(self, log: Path | None = None) -> str:
        return (log or self.log).read_text(errors="replace")

    def finish(self, job: Job, **variables: str) -> int | None:
        """Run a command to its end; its exit status, None if it hung."""
        return wait(self.start(job, None, **variables))

    def wait_until_begun(self, job: Job, process: Process) -> bool:
        """Wait until it is past its start-up; False if it ended before."""
        while process.poll() is None:
            with contextlib.suppress(OSError):
                if job.begun(self.printed(), self.run):
                    return True
            time.sleep(0.005)
        return False


def wait(process: Process) -> int | None:
    try:
        return process.wait(HANGS_AFTER_SECONDS)
    except subprocess.TimeoutExpired:
        kill_all(process)
        return None


def kill_all(process: Process) -> int:
    """SIGKILL to a command and to every process that it started, of whatever group; returns how many."""
    try:
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        everyone = []
    for each in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(everyone, timeout=30)
    return len(everyone)


# ------------------------------------------------------------------------------------------------- end states


def matches(path: Path, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(path.name, p) or fnmatch.fnmatch(path.as_posix(), f"*/{p}") for p in patterns)


def state(run: Path) -> dict[str, str]:
    """Digest of every file below a folder; those of ``UNEQUAL`` count as there."""
    result = {}
    for file in sorted(run.rglob("*")):
        name = file.relative_to(run)
        if not file.is_file() or any(matches(Path(part), LEFT_BEHIND) for part in name.parts):
            continue
        key = re.sub(r"training_log_\w+", "training_log", str(name))
        result[key] = "there" if matches(name, list(UNEQUAL)) else digest(file, run)
    return result


def digest(file: Path, run: Path) -> str:
    """Of the weights in a checkpoint, the files in a zip, nnU-Net's arrays; else of the bytes, without the folder."""
    if file.suffix == ".pth":
        return weights_hash(read_checkpoint(file)["network_weights"])
    if file.suffix == ".zip":
        with TemporaryDirectory() as folder, zipfile.ZipFile(file) as zipped:
            zipped.extractall(folder)
            return hashlib.sha256(json.dumps(state(Path(folder))).encode()).hexdigest()
    if file.suffix == ".b2nd" and "_SIKD_" not in file.parent.name:
        # nnU-Net's own: several threads compress the blocks, in any order. The content must be the same.
        array = open_array(file)[:]
        return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + array.tobytes()).hexdigest()
    return hashlib.sha256(file.read_bytes().replace(str(run).encode(), b"RUN")).hexdigest()


def left_behind(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if matches(Path(path.name), LEFT_BEHIND))


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Names of files that differ, are missing, or are too many."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def half_written(run: Path, final: dict[str, str]) -> list[str]:
    """Files of this package that look finished and are not what they will be at the end, or cannot be read."""
    bad = []
    for file in run.rglob("*"):
        name = file.relative_to(run)
        if not file.is_file() or any(matches(Path(part), LEFT_BEHIND) for part in name.parts):
            continue
        try:
            if file.suffix == ".pth":
                read_checkpoint(file)
            elif file.name in ("training_cost.json", "prediction_cost.json", "predicted_with.json") or (
                matches(name, ["steps/*.json"])
            ):
                json.loads(file.read_text())
            elif (
                file.parent.name.endswith("_SIKD_per_slice")
                or file.suffix == ".zip"
                or matches(name, ["metrics.csv", "report/scores.csv", "report/differences.csv"])
            ) and digest(file, run) != final.get(str(name)):
                bad.append(str(name))
        except Exception as error:
            bad.append(f"{name} ({error})")
    return bad


def error_line(printed: str) -> str:
    """What a user is left with: the last line; marked where a traceback of this package's command came before."""
    lines = [line for line in re.split(r"[\r\n]+", printed) if line.strip()]
    return lines[-1].strip() if lines else ""


# ------------------------------------------------------------------------------------------------- results


@dataclass
class Row:
    """One fault done to one command.

    Attributes:
        fault: What was done.
        command: To which one.
        times: How often.
        equal: How often the same command, given again, ended as an undisturbed one.
        problems: What else went wrong.
        seen: What the user saw.
        details: Moments and the like.
    """

    fault: str
    command: str
    times: int = 0
    equal: int = 0
    problems: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.equal == self.times and not self.problems


class Faults:
    """Undisturbed runs, and the faults.

    Args:
        sandbox: Where they run.
        seed: Of the moments.
    """

    def __init__(self, sandbox: Sandbox, seed: int) -> None:
        self.sandbox, self.random = sandbox, random.Random(seed)
        self.jobs = jobs(sandbox.run)
        self.final: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, tuple[float, float]] = {}
        self.size: dict[str, tuple[int, int]] = {}

    def run_undisturbed(self, names: Sequence[str]) -> None:
        """Run commands one after the other and keep what they start from and end in."""
        wait(
            Forked(("--version",), self.sandbox.environment, self.sandbox.log, self.sandbox.folder)
        )  # starts the server
        kept = self.sandbox.folder / "undisturbed.json"
        if kept.is_file():
            for name, values in json.loads(kept.read_text()).items():
                self.final[name], self.seconds[name], self.size[name] = values
        for name in names:
            job = self.jobs[name]
            if name in self.final:
                continue
            if (self.sandbox.folder / "saved" / name).is_dir():
                self.sandbox.reset(name)
            if name == "benchmark":
                self.sandbox.reset("raw")
            self.sandbox.save(name)
            before, begin = disk_usage(self.sandbox.run), time.monotonic()
            process = self.sandbox.start(job)
            self.sandbox.wait_until_begun(job, process)
            begun = time.monotonic() - begin
            if wait(process) != 0:
                raise SystemExit(f"{name}: failed undisturbed\n{self.sandbox.printed()}")
            self.seconds[name] = begun, time.monotonic() - begin
            self.size[name] = before, disk_usage(self.sandbox.run)
            self.final[name] = state(self.sandbox.run)
            kept.write_text(
                json.dumps({key: (self.final[key], self.seconds[key], self.size[key]) for key in self.final})
            )
            tell(f"undisturbed {name}: {self.seconds[name][1]:.1f} s, {begun:.1f} s of it start-up")

    def again(self, row: Row, **variables: str) -> None:
        """Give the command again and compare."""
        job = self.jobs[row.command]
        row.times += 1
        code = self.sandbox.finish(job, **variables)
        printed = self.sandbox.printed()
        # A finished export refuses to write over its zip.
        if code != 0 and not (row.command == "export" and "exists, choose another name" in printed):
            row.problems.append(f"given again: status {code}, {error_line(printed)}")
        differing = differences(self.final[row.command], state(self.sandbox.run))
        if differing:
            row.problems.append(f"different: {', '.join(differing[:5])} ({len(differing)})")
        row.equal += not differing
        leftovers = left_behind(self.sandbox.run)
        if leftovers:
            row.details.append(f"left behind: {', '.join(leftovers)}")

    def check_whole(self, row: Row) -> None:
        row.problems += [f"half-written: {name}" for name in half_written(self.sandbox.run, self.final[row.command])]

    def see(self, row: Row, code: int | None) -> None:
        """Note what a disturbed command told its user."""
        printed = self.sandbox.printed()
        line = error_line(printed).replace(str(self.sandbox.folder), "")
        row.seen[re.sub(r"(?<=per_slice)\.\w{8}\.tmp|\d{4,}", "…", line)] += 1
        if code is None:
            row.problems.append(f"hung: {line}")
        elif code == 0:  # it fitted, or was faster than the fault
            missing = differences(self.final[row.command], state(self.sandbox.run))
            row.problems += [f"ended with status 0 without {name}" for name in missing[:3]]
        elif not line.startswith("Error: "):
            row.problems.append(f"no clear message: {line}")

    # ---------------------------------------------------------------- SIGKILL

    def kill(self, name: str, times: int) -> Row:
        """SIGKILL at random moments, up to four (benchmark: eight) in a row, then the same command again."""
        row = Row("SIGKILL", name)
        kills = 0
        while kills < times:
            self.sandbox.reset(name)
            before = kills
            for _ in range(min(times - kills, self.random.randint(1, 8 if name == "benchmark" else 4))):
                if not self._kill_once(row):
                    break
                kills += 1
                self.check_whole(row)
                tell(f"{name}: kill {kills}, {row.details[-1]}")
            if kills > before:
                self.again(row)
                self._check_continued(row)
                tell(f"{name}: given again, {row.equal} of {row.times} equal {'; '.join(row.problems)}")
        row.details.insert(0, f"{kills} kills in {row.times} runs")
        return row

    def _kill_once(self, row: Row) -> bool:
        job, (begun, end) = self.jobs[row.command], self.seconds[row.command]
        self._expected_epoch = next_epoch(self.sandbox.run, row.command)
        begin, process = time.monotonic(), self.sandbox.start(job)
        # Most of a short command is start-up: four in five kills are for what comes after.
        if self.random.random() < 0.8:
            self.sandbox.wait_until_begun(job, process)
            delay = self.random.uniform(0, end - begun if row.command != "benchmark" else 30)
        else:
            delay = self.random.uniform(0, end if row.command != "benchmark" else 30)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)
        if process.poll() is not None:  # over before
            return False
        alone = self.random.random() < 0.25
        if alone:  # what it started is left to end by itself
            process.kill()
            process.wait()
        number = 1 if alone else kill_all(process)
        row.details.append(f"after {time.monotonic() - begin:.2f} s, {number} processes{' (alone)' if alone else ''}")
        self._check_continued(row)
        self._expected_epoch = next_epoch(self.sandbox.run, row.command)
        return True

    def _check_continued(self, row: Row) -> None:
        """A training must go on from the last checkpoint that the kill left."""
        first = re.search(r"Epoch (\d+)", self.sandbox.printed())
        if self._expected_epoch is not None and first and int(first[1]) != self._expected_epoch:
            row.problems.append(f"continued with epoch {first[1]} instead of {self._expected_epoch}")

    # ---------------------------------------------------------------- file systems

    def disk_full(self, name: str, fractions: Sequence[float]) -> Row:
        """Room for a part of what the command writes; then enough, and the same command again."""
        row = Row("disk full", name)
        before, after = self.size[name]
        for part in fractions:
            with mounted(self.sandbox) as disk:
                self.sandbox.reset(name)
                disk.resize(disk.used() + int(part * (after - before)))
                self.see(row, self.sandbox.finish(self.jobs[name]))
                self.check_whole(row)
                disk.resize(2 * after + 2**26)
                self.again(row)
        return row

    def read_only(self, name: str) -> Row:
        """A file system that is read-only, then not."""
        row = Row("read-only", name)
        with mounted(self.sandbox) as disk:
            self.sandbox.reset(name)
            disk.remount("ro")
            self.see(row, self.sandbox.finish(self.jobs[name]))
            disk.remount("rw")
            self.again(row)
        return row

    def vanish(self, name: str, times: int) -> Row:
        """The file system goes in the middle (an empty mount point is left), and comes back."""
        row = Row("folder vanishes", name)
        begun, end = self.seconds[name]
        while row.times < times:
            with mounted(self.sandbox) as disk:
                self.sandbox.reset(name)
                process = self.sandbox.start(self.jobs[name])
                self.sandbox.wait_until_begun(self.jobs[name], process)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(self.random.uniform(0, min(end - begun, 20)))
                if process.poll() is not None:
                    continue
                disk.detach()
                code = wait(process)
                disk.attach()
                self.see(row, code)
                self.check_whole(row)
                self.again(row)
        return row

    # ---------------------------------------------------------------- processes

    def kill_worker(self, name: str, times: int) -> Row:
        """SIGKILL to one process that the command started, at any depth."""
        row = Row("worker killed", name)
        begun, end = self.seconds[name]
        tries = 0
        while row.times < times and tries < 5 * times:
            tries += 1
            self.sandbox.reset(name)
            process = self.sandbox.start(self.jobs[name], nnUNet_n_proc_DA="2")
            self.sandbox.wait_until_begun(self.jobs[name], process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.random.uniform(0, min(end - begun, 40)))
            try:
                victims = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                victims = []
            victims = [each for each in victims if "resource_tracker" not in " ".join(command_line(each))]
            if process.poll() is not None or not victims:
                wait(process)
                continue
            victim = self.random.choice(victims)
            row.details.append(describe(victim))
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
            code = wait(process)
            if code != 0:  # 0: it was not needed any more, or has been replaced
                self.see(row, code)
            else:
                row.seen["(nothing: it ended as usual)"] += 1
            self.check_whole(row)
            self.again(row)
        return row

    def eight_at_once(self, name: str) -> Row:
        """Eight processes of the same command on the same data set."""
        row = Row("eight at once", name)
        self.sandbox.reset(name)
        logs = [self.sandbox.folder / f"log_{number}.txt" for number in range(8)]
        started = [self.sandbox.start(self.jobs[name], log) for log in logs]
        for process, log in zip(started, logs, strict=True):
            code, line = wait(process), error_line(self.sandbox.printed(log))
            row.seen["(it ended as usual)" if code == 0 else line.replace(str(self.sandbox.folder), "")] += 1
            if code is None or (code != 0 and not line.startswith("Error: ")):
                row.problems.append(f"status {code}: {line}")
        self.again(row)
        return row

    def five_folds(self) -> Row:
        """Teachers of all folds at once, on a data set without copies and without splits, against one by one."""
        row = Row("five at once", "teacher, folds 0 to 4")
        job = self.jobs["teacher"]
        place = job.arguments.index("-f") + 1
        folds = [
            Job(f"fold {number}", (*job.arguments[:place], str(number), *job.arguments[place + 1 :]), job.begun)
            for number in range(5)
        ]
        self.sandbox.reset("preprocess")
        for each in folds:
            if self.sandbox.finish(each) != 0:
                raise SystemExit(f"{each.name}: failed undisturbed\n{self.sandbox.printed()}")
        wanted = state(self.sandbox.run)
        self.sandbox.reset("preprocess")
        logs = [self.sandbox.folder / f"log_{number}.txt" for number in range(5)]
        # No augmentation processes: twenty of them would need more memory than a small machine has.
        started = [self.sandbox.start(each, log, nnUNet_n_proc_DA="0") for each, log in zip(folds, logs, strict=True)]
        for process, log in zip(started, logs, strict=True):
            code = wait(process)
            row.seen["(it ended as usual)" if code == 0 else error_line(self.sandbox.printed(log))] += 1
            if code != 0:
                row.problems.append(f"status {code}: {error_line(self.sandbox.printed(log))}")
        row.times = 1
        differing = differences(wanted, state(self.sandbox.run))
        row.equal = int(not differing)
        row.problems += [f"different: {name}" for name in differing[:5]]
        return row

    def cut_file(self, name: str, pattern: str) -> Row:
        """A file as a kill in the middle of nnU-Net's writing leaves it: its first half. Then the command again."""
        row = Row(f"half a file: {pattern.rpartition('/')[2]}", name)
        self.sandbox.reset(name)
        if self.sandbox.finish(self.jobs[name]) != 0:
            raise SystemExit(self.sandbox.printed())
        file = sorted(self.sandbox.run.glob(pattern))[0]
        os.truncate(file, file.stat().st_size // 2)
        self.again(row)
        return row


def next_epoch(run: Path, command: str) -> int | None:
    """The epoch with which a training has to go on; None if it has not saved anything or is over."""
    trainer = {"teacher": TEACHER, "student": STUDENT}.get(command)
    if trainer is None or (fold(run, trainer) / "checkpoint_final.pth").is_file():
        return None
    for kind in ("latest", "best"):  # nnU-Net's order
        file = fold(run, trainer) / f"checkpoint_{kind}.pth"
        if file.is_file():
            return int(read_checkpoint(file)["current_epoch"])
    return None


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def describe(process: psutil.Process) -> str:
    line = " ".join(command_line(process))
    for mark, what in (("spawn_main", "spawned worker"), ("nnUNetv2_sikd", "nnUNetv2_sikd"), ("nnUNetv2_", "nnUNetv2")):
        if mark in line:
            parent = process.parent()
            forked = parent is not None and command_line(parent) == command_line(process)
            return "forked worker" if forked else (re.search(r"nnUNetv2_\w+(?: \w+)?", line) or [what])[0]
    return "process"


def disk_usage(folder: Path) -> int:
    """Bytes that a folder takes, hard links counted once."""
    blocks = {}
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            blocks[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())


class Disk:
    """A file system in memory, seen at a mount point."""

    def __init__(self, hidden: Path, seen: Path) -> None:
        self.hidden, self.seen = hidden, seen

    def attach(self) -> None:
        subprocess.run(["mount", "--bind", str(self.hidden), str(self.seen)], check=True)

    def detach(self) -> None:
        subprocess.run(["umount", "-l", str(self.seen)], check=True)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.hidden)], check=True)

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.hidden)], check=True)

    def used(self) -> int:
        status = os.statvfs(self.hidden)
        return (status.f_blocks - status.f_bfree) * status.f_frsize


@contextlib.contextmanager
def mounted(sandbox: Sandbox) -> Iterator[Disk]:
    """Let the sandbox's folder be a file system of its own."""
    hidden = sandbox.folder / "disk"
    hidden.mkdir(exist_ok=True)
    for path in sandbox.run.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(hidden)], check=True)
    disk = Disk(hidden, sandbox.run)
    try:
        disk.attach()
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(sandbox.run)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["umount", "-l", str(hidden)], check=False)


def can_mount() -> bool:
    """Whether this process may mount file systems."""
    with TemporaryDirectory() as folder:
        try:
            done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        except OSError:
            return False
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


# ------------------------------------------------------------------------------------------------- the full run

SHARES = {"preprocess": 0.28, "teacher": 0.16, "student": 0.16, "export": 0.15, "evaluate": 0.15, "benchmark": 0.1}
KINDS = ("kills", "cut", "full", "readonly", "vanish", "worker", "eight")
_SOURCE = f"preprocessed/{SOURCE}"
# What nnU-Net writes in place, and the command that has to notice.
CUT = {
    "prepare": (
        f"{_SOURCE}/dataset_fingerprint.json",
        f"{_SOURCE}/nnUNetPlans.json",
        f"{_SOURCE}/nnUNetPlans_2d/*.pkl",  # written after the case's arrays
        f"{_SOURCE}/gt_segmentations/*",
    ),
    "preprocess": (f"{_SOURCE}/*_SIKD_per_slice/*_000.b2nd",),
    "teacher": (f"results/{SOURCE}/{TEACHER}__*/fold_0/validation/summary.json",),
    "predict": ("out/predicted/*.nii.gz", "out/predicted/prediction_cost.json"),
    "evaluate": ("out/evaluated/metrics.csv", "out/evaluated/summary.json"),
}


def tell(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def planned(faults: Faults, kinds: Sequence[str], commands: Sequence[str], kills: int) -> Iterator[Row]:
    """Do the faults, one command after the other."""
    for name in commands:
        short = name != "benchmark"
        if "kills" in kinds and name in SHARES:
            yield faults.kill(name, round(SHARES[name] * kills))
        for pattern in CUT.get(name, ()) if "cut" in kinds else ():
            yield faults.cut_file(name, pattern)
        if "full" in kinds and name in SHARES:
            yield faults.disk_full(name, (0.0, 0.3, 0.8) if short else (0.1, 0.6))
        if "readonly" in kinds and name in SHARES:
            yield faults.read_only(name)
        if "vanish" in kinds and name in SHARES:
            yield faults.vanish(name, 2 if short else 1)
        if "worker" in kinds and name in ("teacher", "student", "predict", "benchmark"):
            yield faults.kill_worker(name, 3 if short else 2)
        if "eight" in kinds and name in ("preprocess", "export", "evaluate"):
            yield faults.eight_at_once(name)
        if "eight" in kinds and name == "teacher":
            yield faults.five_folds()


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = ["| fault | command | times | end state as undisturbed | what the user sees |", "|---|---|---|---|---|"]
    for row in rows:
        seen = "; ".join(f"{line} ({times})" for line, times in row.seen.most_common(3)).replace("|", "\\|")
        note = "" if row.passed else f" **{'; '.join(row.problems)[:300]}**"
        lines.append(f"| {row.fault} | {row.command} | {row.times} | {row.equal}{note} | {seen} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=Path,
        required=True,
        help="folder for everything; undisturbed runs that are in it are not repeated",
    )
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="only these faults")
    parser.add_argument("--commands", nargs="+", help="only these commands")
    parser.add_argument("--json", type=Path, help="results, with every moment")
    args = parser.parse_args()
    kinds = [kind for kind in args.only if can_mount() or kind not in ("full", "readonly", "vanish")]
    for kind in sorted(set(args.only) - set(kinds)):
        tell(f"{kind}: left out, this process may not mount file systems")
    args.work.mkdir(parents=True, exist_ok=True)
    sandbox = Sandbox(args.work)
    if not (sandbox.folder / "saved").is_dir():
        sandbox.write_raw()
        sandbox.save("raw")
    faults = Faults(sandbox, args.seed)
    commands = args.commands or list(faults.jobs)
    faults.run_undisturbed([name for name in faults.jobs if name in commands or name != "benchmark"])
    rows = []
    for row in planned(faults, kinds, commands, args.kills):
        rows.append(row)
        tell(f"{row.fault}, {row.command}: {row.equal} of {row.times} equal {'; '.join(row.problems)}")
        if args.json:
            args.json.write_text(json.dumps({"seed": args.seed, "rows": [vars(row) for row in rows]}, indent=1))
    print(table(rows))
    sys.exit(not all(row.passed for row in rows))


if __name__ == "__main__":
    main()

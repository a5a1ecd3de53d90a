"""The steps of a benchmark: commands with inputs and outputs, planned once, run here or on a cluster."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import TestSet, Training
from nnunetv2_sikd.prediction import COST_FILE
from nnunetv2_sikd.processes import as_typed
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.base import nnUNetTrainer_SIKDBase
from nnunetv2_sikd.trainers.student import nnUNetTrainer_SIKDStudent


@dataclass(frozen=True)
class Resources:
    """What a step needs on a cluster.

    Attributes:
        gpus: Number of GPUs.
        memory_mb: Main memory in MiB.
        cpus: Processor cores.
    """

    gpus: int = 0
    memory_mb: int = 4000
    cpus: int = 2


@dataclass(frozen=True)
class BenchmarkStep:
    """One command.

    Attributes:
        name: Unique, for logs and records.
        title: What happens, in plain words.
        command: Command and arguments; running it again continues or skips.
        inputs: Files that other steps make.
        outputs: Files that it makes.
        resources: What it needs on a cluster.
        epochs: Epochs that it trains, if that is known and it trains.
        watched: Files, and folders of files, that no step makes and that it has to be run again for when they change.
        settings: What it depends on beyond its command.
    """

    name: str
    title: str
    command: tuple[str, ...]
    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    resources: Resources = field(default_factory=Resources)
    epochs: int | None = None
    watched: tuple[Path, ...] = ()
    settings: str = ""


@dataclass(frozen=True)
class Machine:
    """How the steps run.

    Attributes:
        device: ``cuda``, ``cpu`` or ``mps``.
        processes: Processes of a step that uses several.
        memory_mb: Main memory in MiB that a step may need (but the report, which reads one file at a time).
    """

    device: str = "cuda"
    processes: int = 2
    memory_mb: int = 24000

    def options(self) -> list[str]:
        """As options of ``nnUNetv2_sikd benchmark``."""
        return ["-device", self.device, "-np", str(self.processes), "--memory_mb", str(self.memory_mb)]


def without_machine(command: Iterable[str]) -> list[str]:
    """A command without ``--overwrite``, the options of a ``Machine`` and their values: what decides what it makes."""
    parts, kept = iter(command), []
    for part in parts:
        if part in ("-device", "-np", "--memory_mb"):
            next(parts, None)
        elif part != "--overwrite":
            kept.append(part)
    return kept


def plan_steps(layout: Layout, file: Path | str, machine: Machine) -> list[BenchmarkStep]:
    """All steps, in an order in which they can run one after the other.

    A teacher that several students share (another α) is trained once.

    Args:
        layout: Specification and folders.
        file: The benchmark file, or the name of a shipped one, for the command that writes the report.
        machine: How the steps run.

    Raises:
        SIKDError: A data set is missing.
    """
    planner = _Planner(layout, machine)
    specification = layout.specification
    trainings = list(specification.trainings())
    trained = {step.name: step for training in trainings for step in planner.train(training)}
    copies = [planner.copies()] if any(planner.copies_record in step.inputs for step in trained.values()) else []
    tested = [(test, training) for test in specification.tests for training in trainings]
    evaluations = [planner.evaluate(*pair) for pair in tested]
    return [
        planner.prepare(),
        *copies,
        *trained.values(),
        *(planner.predict(*pair) for pair in tested),
        *evaluations,
        planner.report(file, evaluations),
    ]


def needed_steps(step: BenchmarkStep, steps: Sequence[BenchmarkStep]) -> list[BenchmarkStep]:
    """The steps that make a step's inputs."""
    inputs = set(step.inputs)
    return [other for other in steps if not inputs.isdisjoint(other.outputs)]


def show_steps(steps: Sequence[BenchmarkStep], done: Collection[str] = ()) -> None:
    """Print the steps: title, command, what it needs, what it makes.

    Args:
        steps: All steps.
        done: Names of those that are done.
    """
    for number, step in enumerate(steps, 1):
        state = " (done)" if step.name in done else ""
        print(f"[{number}/{len(steps)}] {step.title}{state}\n  $ {as_typed(step.command)}")
        needed = ", ".join(other.name for other in needed_steps(step, steps))
        print(f"  step {step.name}" + (f", after {needed}" if needed else ""))
        for path in step.outputs:
            print(f"  makes {path}")


class _Planner:
    """Makes each kind of step."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self._layout, self._machine = layout, machine
        self._specification = layout.specification
        source = self._specification.source
        self._source = ("-d", layout.source, "-c", source.configuration, "-p", source.plans)
        self._plans = layout.preprocessed() / f"{source.plans}.json"
        # Where the copies lie is known only once the data set is planned.
        self.copies_record = layout.record("copies")
        self._several = Resources(memory_mb=machine.memory_mb, cpus=machine.processes)
        self._heavy = Resources(
            gpus=int(machine.device == "cuda"), memory_mb=machine.memory_mb, cpus=max(2, machine.processes)
        )

    def prepare(self) -> BenchmarkStep:
        source = self._specification.source
        command = ["nnUNetv2_sikd", "prepare", *self._source, "-np", str(self._machine.processes)]
        if source.derive is not None:
            command += ["--base", source.derive.base]
            for key, value in source.derive.model_dump(exclude={"base"}, exclude_none=True).items():
                command += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
        return BenchmarkStep(
            "prepare",
            f"Plan and preprocess {self._layout.source}",
            tuple(command),
            (self._layout.raw(source.dataset) / "dataset.json",),
            (self._plans,),
            self._several,
        )

    def copies(self) -> BenchmarkStep:
        return BenchmarkStep(
            "copies",
            "Average the training cases by class",
            ("nnUNetv2_sikd", "preprocess", *self._source, "-np", str(self._machine.processes)),
            (self._plans,),
            (self.copies_record,),
            self._several,
        )

    def train(self, training: Training) -> Iterator[BenchmarkStep]:
        """The training, after its teacher's if it is a student's."""
        trainer = getattr(variants, training.trainer, None)
        inputs = [self._plans]
        if isinstance(trainer, type) and issubclass(trainer, nnUNetTrainer_SIKDBase):
            inputs += [self.copies_record] if trainer.sikd.teacher_input == "class_average" else []
        if isinstance(trainer, type) and issubclass(trainer, nnUNetTrainer_SIKDStudent):
            teacher = trainer.teacher_class.__name__
            yield self._train(teacher, training.fold, tuple(inputs), "Train the teacher")
            inputs.append(self._checkpoint(teacher, training.fold))
        title = f"Train {self._specification.arm_title(training.arm)}"
        yield self._train(training.trainer, training.fold, tuple(inputs), title)

    def _train(self, trainer: str, fold: int, inputs: tuple[Path, ...], title: str) -> BenchmarkStep:
        options = ("-f", str(fold), "-tr", trainer, "-device", self._machine.device)
        schedule = getattr(getattr(variants, trainer, None), "schedule", None)
        return BenchmarkStep(
            f"train_{trainer}_fold{fold}",
            f"{title} ({trainer}, fold {fold})",
            ("nnUNetv2_sikd", "train", *self._source, *options),
            inputs,
            (self._checkpoint(trainer, fold), self._layout.fold(trainer, fold) / "validation" / "summary.json"),
            self._heavy,
            epochs=None if schedule is None else schedule.epochs,
        )

    def _checkpoint(self, trainer: str, fold: int) -> Path:
        return self._layout.fold(trainer, fold) / "checkpoint_final.pth"

    def predict(self, test: TestSet, training: Training) -> BenchmarkStep:
        output = self._layout.predictions(test, training)
        options = ("-f", str(training.fold), "-tr", training.trainer, "-device", self._machine.device)
        return BenchmarkStep(
            f"predict_{test.key}_{training.key}",
            f"Predict {test.title or test.key} with {self._specification.arm_title(training.arm)} ({training.key})",
            (
                "nnUNetv2_sikd",
                "predict",
                "-i",
                str(self._layout.images(test)),
                "-o",
                str(output),
                *self._source,
                *options,
                "-np",
                str(self._machine.processes),
                "--overwrite",
            ),
            (self._checkpoint(training.trainer, training.fold),),
            (output / COST_FILE,),
            self._heavy,
            watched=(self._layout.images(test), self._checkpoint(training.trainer, training.fold)),
        )

    def evaluate(self, test: TestSet, training: Training) -> BenchmarkStep:
        predictions = self._layout.predictions(test, training)
        output = self._layout.evaluation(test, training)
        command = ["nnUNetv2_sikd", "evaluate", str(self._layout.references(test)), str(predictions), "-o", str(output)]
        command += ["--tolerance", str(self._specification.surface_tolerance)]
        datasets = (self._specification.source.dataset, test.dataset)
        described = tuple(self._layout.raw(dataset) / "dataset.json" for dataset in datasets)
        command += ["-djfile", str(described[0]), "-gt_djfile", str(described[1])]
        command += ["--slices"] if test.slices else []
        command += ["--labels", *(f"{ours}={theirs}" for ours, theirs in test.labels.items())] if test.labels else []
        return BenchmarkStep(
            f"evaluate_{test.key}_{training.key}",
            f"Evaluate {self._specification.arm_title(training.arm)} on {test.title or test.key} ({training.key})",
            (*command, "-np", str(self._machine.processes)),
            (predictions / COST_FILE,),
            (output / "metrics.csv", output / "summary.json"),
            self._several,
            watched=(self._layout.references(test), *described),
        )

    def report(self, file: Path | str, evaluations: Sequence[BenchmarkStep]) -> BenchmarkStep:
        return BenchmarkStep(
            "report",
            "Write the report",
            ("nnUNetv2_sikd", "report", str(file), "-o", str(self._layout.output), *self._layout.choice()),
            tuple(path for step in evaluations for path in step.outputs),
            (self._layout.report() / "report.html",),
            settings=self._specification.model_dump_json(),
        )

"""Time and memory of training: stock, teacher and student side by side, a step whole and in parts, or epochs.

Makes a synthetic data set of the size asked for, plans and preprocesses it with nnU-Net's own commands (or takes yours
with -d), and takes turns between the trainers, so that drifts of the machine hit all alike. Steps are timed on batches
that were loaded before; with --epochs the loading counts too. Nothing is written outside a temporary folder. Without
--batch_size it is what nnU-Net plans for a GPU of 8 GB.

    python benchmarks/training.py --size 96 96 --batch_size 4 --json step.json         # a CPU, four minutes
    python benchmarks/training.py --size 96 96 --batch_size 4 --ideas                  # also what else was tried
    python benchmarks/training.py -d 101 -c 2d_3mm --epochs 5                          # with the real data loading
    python benchmarks/training.py --size 512 512 --network ResEncUNetM -device cuda [--compile]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch
from tqdm import tqdm

from nnunetv2_sikd.environment import FOLDER_VARIABLES, with_trainers

SYNTHETIC, CASES, SLICES = "Dataset900_Synthetic", 5, 4
PLANNERS = {  # planner, plans
    "PlainConvUNet": ("ExperimentPlanner", "nnUNetPlans"),
    "ResEncUNetM": ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
}
SCHEDULE = "1epochs_1iterations"
ITERATIONS = 50  # of an epoch
STOCK, STUDENT = "stock", "student, patch view"
TRAINERS = {
    STOCK: f"nnUNetTrainer_{SCHEDULE}",
    "teacher": f"nnUNetTrainer_SIKDTeacher_{SCHEDULE}",
    STUDENT: f"nnUNetTrainer_SIKDStudent_{SCHEDULE}",
    "student, copy view": f"nnUNetTrainer_SIKDStudent_copyView_{SCHEDULE}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=[96, 96], metavar="PIXELS", help="of a slice")
    parser.add_argument("--network", choices=PLANNERS, default="PlainConvUNet")
    parser.add_argument("--batch_size", type=int, help="instead of the planned one")
    parser.add_argument("-d", metavar="DATASET", help="preprocessed data set, instead of a synthetic one")
    parser.add_argument("-c", default="2d", metavar="CONFIGURATION", help="with -d")
    parser.add_argument("-p", metavar="PLANS", help="with -d (default: those of --network)")
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--compile", action="store_true", help="torch.compile, as nnU-Net does by default on a GPU")
    parser.add_argument("--ideas", action="store_true", help="also students with changes that promise speed")
    parser.add_argument("--epochs", type=int, default=0, help="time epochs of 50 iterations with loading, not steps")
    parser.add_argument("--rounds", type=int, default=30, help="steps of each trainer")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help="picture of the parts of a step")
    args = parser.parse_args()
    args.p = args.p or PLANNERS[args.network][1]
    os.environ.update(with_trainers())
    os.environ.update(nnUNet_SIKD_force_teacher="1", nnUNet_compile="t" if args.compile else "f")
    parts: dict[str, dict[str, float]] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if args.d is None:
            prepare(Path(folder), args)
        os.environ["nnUNet_results"] = folder
        if args.epochs:
            seconds = measure_epochs(args)
        else:
            os.environ["nnUNet_n_proc_DA"] = "0"
            seconds, parts = measure([*TRAINERS, *(IDEAS if args.ideas else ())], args)
            memory = {} if args.ideas else {name: alone(name, args) for name in TRAINERS}
        report(seconds, parts, memory, args)
        if args.figure and parts:
            draw_parts(parts, args.figure)


# -------------------------------------------------------------------- data


def prepare(folder: Path, args: argparse.Namespace) -> None:
    """Images of that size, planned and preprocessed, as the data set, configuration and plans of the arguments."""
    from nnunetv2_sikd.demo.dataset import LABELS, SOURCE_SCANNER, draw_case

    os.environ.update({variable: str(folder / variable) for variable in FOLDER_VARIABLES})
    raw = folder / "nnUNet_raw" / SYNTHETIC
    for kind in ("images", "labels"):
        (raw / f"{kind}Tr").mkdir(parents=True)
    for case in tqdm(range(CASES), desc="Images", unit="case"):
        slices = [draw_case(np.random.default_rng((case, number)), SOURCE_SCANNER) for number in range(SLICES)]
        for kind, pixels, suffix in zip(("images", "labels"), zip(*slices, strict=True), ("_0000", ""), strict=True):
            volume = sitk.GetImageFromArray(np.stack(pixels))
            reference = sitk.Image([*reversed(args.size), SLICES], volume.GetPixelID())
            reference.SetSpacing([volume.GetSize()[i] / reference.GetSize()[i] for i in range(3)])
            resampled = sitk.Resample(volume, reference, sitk.Transform(), sitk.sitkNearestNeighbor)
            resampled.SetSpacing((1, 1, 10))
            sitk.WriteImage(resampled, str(raw / f"{kind}Tr" / f"case_{case}{suffix}.nii.gz"))
    described = {"channel_names": {"0": "synthetic"}, "labels": LABELS, "numTraining": CASES, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(described))

    args.d, args.c = SYNTHETIC[7:10], f"2d_batch{args.batch_size}" if args.batch_size else "2d"
    call("nnUNetv2_extract_fingerprint", "-d", args.d, "-np", "1")
    call("nnUNetv2_plan_experiment", "-d", args.d, "-pl", PLANNERS[args.network][0])
    derived = ["--base", "2d", "--batch_size", str(args.batch_size)] if args.batch_size else []
    call("nnUNetv2_sikd", "prepare", "-d", args.d, "-c", args.c, "-p", args.p, "-np", "1", *derived)


def call(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}")


def started(name: str, args: argparse.Namespace) -> Any:
    """A trainer ready for its first training step."""
    from nnunetv2.run.run_training import get_trainer_from_args

    def trainer_of(name: str) -> Any:
        return get_trainer_from_args(args.d, args.c, 0, name, args.p, device=device)

    device = torch.device(args.device)
    trainer = trainer_of(TRAINERS.get(name, TRAINERS[STUDENT]))
    if hasattr(trainer, "teacher_class"):
        # Untrained: a trained one costs the same.
        teacher = trainer_of(trainer.teacher_class.__name__)
        teacher.initialize()
        teacher.save_checkpoint(str(Path(teacher.output_folder) / "checkpoint_final.pth"))
        del teacher
    trainer.on_train_start()
    trainer.network.train()
    if name in IDEAS:
        IDEAS[name](trainer)
    return trainer


# -------------------------------------------------------------------- ideas


def teacher_channels_last(student: Any) -> None:
    student.teacher.network.to(memory_format=torch.channels_last)
    around(student.teacher, "features", lambda run, x: run(x.contiguous(memory_format=torch.channels_last)))


def teacher_bfloat16(student: Any) -> None:
    def in_bfloat16(run: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return run(x)

    around(student.teacher, "features", in_bfloat16)


def teacher_compiled(student: Any) -> None:
    student.teacher.compile()


def teacher_inference_mode(student: Any) -> None:
    def in_inference_mode(run: Callable[..., Any], x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            features = run(x)
        return features.clone()  # the loss keeps them for its backward pass, which inference tensors forbid

    around(student.teacher, "features", in_inference_mode)


def all_channels_last(student: Any) -> None:
    teacher_channels_last(student)
    student.network.to(memory_format=torch.channels_last)


def around(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    run = getattr(owner, name)
    setattr(owner, name, lambda *args: wrapper(run, *args))


IDEAS: dict[str, Callable[[Any], None]] = {
    "student, teacher in channels_last": teacher_channels_last,
    "student, both in channels_last": all_channels_last,
    "student, teacher in bfloat16": teacher_bfloat16,
    "student, teacher compiled": teacher_compiled,
    "student, teacher in inference mode": teacher_inference_mode,
}


# -------------------------------------------------------------------- time


@dataclass
class Clock:
    """Time of named parts of a step; on a GPU by events, so that nothing waits that would not wait otherwise."""

    device: str
    marks: list[tuple[str, Any, Any]] = field(default_factory=list)

    def now(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            begin = self.now()
            result = function(*args, **kwargs)
            self.marks.append((part, begin, self.now()))
            return result

        return run

    def read(self) -> dict[str, float]:
        """Seconds of each part since the last reading."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        sums: dict[str, float] = {}
        for part, begin, end in self.marks:
            seconds = begin.elapsed_time(end) / 1e3 if self.device == "cuda" else end - begin
            sums[part] = sums.get(part, 0) + seconds
        self.marks.clear()
        return sums


def measure(arms: list[str], args: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of every counted step by arm, and medians of the parts of a stock and a student step."""
    trainers = all_started(arms, args)
    with contextlib.redirect_stdout(io.StringIO()):
        batches = {name: [next(trainer.dataloader_train) for _ in range(4)] for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    parts: dict[str, list[dict[str, float]]] = {STOCK: [], STUDENT: []}
    clock = Clock(args.device)
    for number in tqdm(range(args.warmup + args.rounds), desc="Rounds"):
        for name, trainer in trainers.items():
            step = clock.timed("step", trainer.train_step)
            step(batches[name][number % 4])
            counted = clock.read()["step"]
            if number >= args.warmup:
                seconds[name].append(counted)
        if not args.compile:  # within a compiled step there are no parts
            for name in parts:
                with watched(trainers[name], clock):
                    trainers[name].train_step(batches[name][number % 4])
                found = clock.read()
                if number >= args.warmup:
                    parts[name].append(found)
    medians = {
        name: {part: statistics.median(each[part] for each in rounds) for part in rounds[0]}
        for name, rounds in parts.items()
        if rounds
    }
    return seconds, medians


def all_started(names: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        return {name: started(name, args) for name in tqdm(names, desc="Trainers")}


def measure_epochs(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step, loading included, of every epoch but the first by arm."""
    trainers = all_started([*TRAINERS], args)
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for epoch in tqdm(range(1 + args.epochs), desc="Epochs"):
        for name, trainer in trainers.items():
            # Full queues at the start are the same help to all.
            time.sleep(2)
            begin = time.perf_counter()
            for _ in range(ITERATIONS):
                trainer.train_step(next(trainer.dataloader_train))
            if args.device == "cuda":
                torch.cuda.synchronize()
            if epoch:
                seconds[name].append((time.perf_counter() - begin) / ITERATIONS)
    for trainer in trainers.values():
        for loader in (trainer.dataloader_train, trainer.dataloader_val):
            if hasattr(loader, "_finish"):
                loader._finish()
    return seconds


@contextlib.contextmanager
def watched(trainer: Any, clock: Clock) -> Iterator[None]:
    """Have the clock see the parts of a trainer's step."""
    segmentation = getattr(trainer.loss, "segmentation", trainer.loss)
    parts: list[tuple[str, Any, str]] = [
        ("forward pass", trainer.network, "forward"),
        ("segmentation loss", segmentation, "forward"),
        ("backward pass", torch.Tensor, "backward"),
        ("optimizer", trainer.optimizer, "step"),
    ]
    if hasattr(trainer, "teacher"):
        import nnunetv2_sikd.distillation.loss as distillation

        parts += [
            ("averaging", trainer, "_teacher_input"),
            ("teacher's forward pass", trainer.teacher, "features"),
            ("distillation loss", distillation, "feature_mse"),
        ]
    with contextlib.ExitStack() as stack:
        for part, owner, name in parts:
            stack.enter_context(mock.patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        yield


# -------------------------------------------------------------------- memory


def alone(name: str, args: argparse.Namespace) -> float:
    """Peak memory of a trainer in a process of its own, MiB: allocated on the GPU, or resident."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, args))


def _peak(name: str, args: argparse.Namespace) -> float:
    from nnunetv2_sikd.trainers.cost import peak_memory_mib

    with contextlib.redirect_stdout(io.StringIO()):
        trainer = started(name, args)
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
    peaks = peak_memory_mib(trainer.device)
    return peaks.get("cuda_allocated", peaks["resident"])


# -------------------------------------------------------------------- report


def report(
    seconds: dict[str, list[float]],
    parts: dict[str, dict[str, float]],
    memory: dict[str, float],
    args: argparse.Namespace,
) -> None:
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    file = Path(os.environ["nnUNet_preprocessed"]) / maybe_convert_to_dataset_name(args.d) / f"{args.p}.json"
    planned = PlansManager(str(file)).get_configuration(args.c).configuration
    network = planned["architecture"]["network_class_name"].split(".")[-1]
    print(f"\n{network}, patch {planned['patch_size']}, batch {planned['batch_size']}, {args.device}\n")
    print("| trainer | ms per step | ratio to stock, round by round (quartiles) | peak memory, MiB | ratio |")
    print("|---|---|---|---|---|")
    steps: dict[str, dict[str, Any]] = {}
    for name, times in seconds.items():
        low, middle, high = statistics.quantiles(
            (ours / stock for ours, stock in zip(times, seconds[STOCK], strict=True)), n=4
        )
        steps[name] = {"median_ms": 1e3 * statistics.median(times), "ratio": middle, "quartiles": [low, high]}
        held = f"{memory[name]:.0f} | {memory[name] / memory[STOCK]:.2f}" if memory else "|"
        print(f"| {name} | {steps[name]['median_ms']:.1f} | {middle:.3f} ({low:.3f} to {high:.3f}) | {held} |")
    if parts:
        print("\n| part | stock, ms | student, ms | share of the student's step, % |\n|---|---|---|---|")
        whole = steps[STUDENT]["median_ms"]
        for part in (*parts[STUDENT],):
            stock, student = (1e3 * parts[name].get(part, 0) for name in (STOCK, STUDENT))
            print(f"| {part} | {stock:.2f} | {student:.2f} | {100 * student / whole:.1f} |")
    if args.json:
        content = {
            "arguments": {key: str(value) for key, value in vars(args).items()},
            "network": network,
            "planned": {key: planned[key] for key in ("patch_size", "batch_size")},
            "hardware": torch.cuda.get_device_name() if args.device == "cuda" else processor(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "steps": steps,
            "parts_ms": {name: {part: 1e3 * s for part, s in found.items()} for name, found in parts.items()},
            "peak_memory_mib": memory,
            "seconds": seconds,
        }
        args.json.write_text(json.dumps(content, indent=1))


def draw_parts(parts: dict[str, dict[str, float]], file: Path) -> None:
    """Stacked bars of the parts of a step, seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = {
        "forward pass": "#0072B2",
        "segmentation loss": "#56B4E9",
        "backward pass": "#999999",
        "optimizer": "#009E73",
        "averaging": "#F0E442",
        "teacher's forward pass": "#E69F00",
        "distillation loss": "#D55E00",
    }
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for row, found in enumerate(parts.values()):
        left = 0.0
        for part, colour in colours.items():
            width = 1e3 * found.get(part, 0.0)
            axes.barh(row, width, left=left, color=colour, label=part if row else None)
            left += width
    axes.set(yticks=range(len(parts)), yticklabels=list(parts), xlabel="ms per step")
    axes.invert_yaxis()
    axes.legend(
        *axes.get_legend_handles_labels(),
        ncols=4,
        frameon=False,
        fontsize=8,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    figure.savefig(file, metadata={"Date": None})


def processor() -> str:
    from nnunetv2_sikd.trainers.cost import device_name

    return f"{device_name(torch.device('cpu'))}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()

"""Time of a training step: stock, teacher and student side by side in one process.

Takes turns between the trainers on batches drawn beforehand from the real data loader, so that drifts of the machine
hit all alike. Needs a preprocessed data set; a teacher is made (untrained) if none fits, which costs the same time.
Nothing is written into your nnUNet_results.

    python benchmarks/training_step.py -d 101 -c 2d -device cpu --rounds 30 --json step.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from nnunetv2_sikd.environment import with_trainers

SCHEDULE = "1epochs_1iterations"
TRAINERS = {
    "stock": f"nnUNetTrainer_{SCHEDULE}",
    "teacher": f"nnUNetTrainer_SIKDTeacher_{SCHEDULE}",
    "student, patch view": f"nnUNetTrainer_SIKDStudent_{SCHEDULE}",
    "student, copy view": f"nnUNetTrainer_SIKDStudent_copyView_{SCHEDULE}",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", required=True)
    parser.add_argument("-c", default="2d")
    parser.add_argument("-p", default="nnUNetPlans")
    parser.add_argument("-f", default=0, type=int)
    parser.add_argument("-device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ.update(with_trainers())
    os.environ.update(nnUNet_n_proc_DA="0", nnUNet_SIKD_force_teacher="1")
    with tempfile.TemporaryDirectory() as results:
        os.environ["nnUNet_results"] = results
        seconds = measure(args)
    report(seconds, args)


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every counted step by trainer."""
    with contextlib.redirect_stdout(io.StringIO()):
        trainers = {name: started(trainer, args) for name, trainer in TRAINERS.items()}
        batches = {name: [next(trainer.dataloader_train) for _ in range(4)] for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for round_number in tqdm(range(args.warmup + args.rounds), unit="round"):
        for name, trainer in trainers.items():
            batch = batches[name][round_number % 4]
            synchronise(args.device)
            start = time.perf_counter()
            trainer.train_step(batch)
            synchronise(args.device)
            if round_number >= args.warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def started(name: str, args: argparse.Namespace) -> Any:
    """A trainer ready for its first training step."""
    from nnunetv2.run.run_training import get_trainer_from_args

    device = torch.device(args.device)
    if device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    trainer = get_trainer_from_args(args.d, args.c, args.f, name, args.p, device=device)
    if hasattr(trainer, "teacher_class"):
        teacher = get_trainer_from_args(args.d, args.c, args.f, trainer.teacher_class.__name__, args.p, device=device)
        teacher.initialize()
        teacher.save_checkpoint(str(Path(teacher.output_folder) / "checkpoint_final.pth"))
    trainer.on_train_start()
    trainer.network.train()
    return trainer


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def report(seconds: dict[str, list[float]], args: argparse.Namespace) -> None:
    print("| trainer | median ms per step | ratio to stock, round by round: median (quartiles) |\n|---|---|---|")
    table = {}
    for name, times in seconds.items():
        ratios = [ours / stock for ours, stock in zip(times, seconds["stock"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        table[name] = {"median_ms": 1e3 * statistics.median(times), "ratio": middle, "quartiles": [low, high]}
        print(f"| {name} | {table[name]['median_ms']:.1f} | {middle:.3f} ({low:.3f} to {high:.3f}) |")
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        arguments = {key: str(value) for key, value in vars(args).items()}
        content = {"arguments": arguments, **machine, **versions, "trainers": table, "seconds": seconds}
        args.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()

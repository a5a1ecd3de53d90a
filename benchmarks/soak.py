"""Long training of teacher and student: whether memory, open files and threads stay as they are, and the teacher too.

    python benchmarks/soak.py --work /tmp/soak --minutes 60 --json soak.json

Makes synthetic images, prepares them, and trains a teacher (fold 1) and a student (fold 0, taught by an untrained
teacher) at the same time on the CPU, through nnU-Net's own training loop. After each epoch it notes memory, open
files, threads and processes of the training and its workers, and the hash of the weights of the student's teacher.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from nnunetv2_sikd.distillation.checkpoint import weights_hash
from nnunetv2_sikd.environment import FOLDER_VARIABLES, with_trainers

DATASET, CONFIGURATION = "901", "2d_soak"
DERIVED = ["--base", "2d", "--patch_size", "64", "64", "--batch_size", "4", "--features_per_stage", "8", "16", "24"]
SCHEDULE = "100000epochs_50iterations"
TEACHER, STUDENT = f"nnUNetTrainer_SIKDTeacher_{SCHEDULE}", f"nnUNetTrainer_SIKDStudent_{SCHEDULE}"
FOLDS = {TEACHER: 1, STUDENT: 0}
COUNTED = {"memory_mib": "memory, MiB", "files": "open files", "threads": "threads", "processes": "processes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="new folder for everything")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", choices=FOLDS, help=argparse.SUPPRESS)  # how this script starts its trainings
    args = parser.parse_args()
    args.work = args.work.resolve()
    if args.train:
        train(args.train, args.work, 60 * args.minutes)
        return
    environment = prepare(args.work)
    command = [sys.executable, __file__, "--work", str(args.work), "--minutes", str(args.minutes), "--train"]
    trainings = [subprocess.Popen([*command, name], env=environment) for name in FOLDS]
    statuses = [training.wait() for training in trainings]
    if any(statuses):
        sys.exit("a training failed: see above")
    results = {name: json.loads((args.work / f"{name}.json").read_text()) for name in FOLDS}
    report(results)
    if args.json:
        args.json.write_text(json.dumps({name: thinned(samples) for name, samples in results.items()}, indent=1))


def prepare(work: Path) -> dict[str, str]:
    """Images, plans and preprocessed cases; returns the environment of the trainings."""
    from nnunetv2_sikd.demo.dataset import write_datasets

    folders = {variable: str(work / variable) for variable in FOLDER_VARIABLES}
    for folder in folders.values():
        Path(folder).mkdir(parents=True)
    write_datasets(Path(folders["nnUNet_raw"]))
    environment = {
        **with_trainers(),
        **folders,
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": "1",
        "nnUNet_n_proc_DA": "2",
        "nnUNet_compile": "f",
        "nnUNet_SIKD_force_teacher": "1",
    }
    subprocess.run(
        ["nnUNetv2_sikd", "prepare", "-d", DATASET, "-c", CONFIGURATION, *DERIVED], env=environment, check=True
    )
    return environment


def train(name: str, work: Path, seconds: float) -> None:
    """Train for that long, and write down what was held after each epoch."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    def trainer_of(name: str, fold: int) -> Any:
        return get_trainer_from_args(DATASET, CONFIGURATION, fold, name, device=torch.device("cpu"))

    if name == STUDENT:
        teacher = trainer_of(TEACHER, FOLDS[STUDENT])
        teacher.initialize()
        teacher.save_checkpoint(str(Path(teacher.output_folder) / "checkpoint_final.pth"))
        del teacher
    trainer = trainer_of(name, FOLDS[name])
    begin, samples = time.monotonic(), []

    with ending_after(trainer, begin + seconds, lambda: samples.append(sample(trainer, begin))):
        trainer.run_training()
    (work / f"{name}.json").write_text(json.dumps(samples))
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        loader._finish()


@contextmanager
def ending_after(trainer: Any, deadline: float, each_epoch: Any) -> Iterator[None]:
    """Let a training end after the first epoch past the deadline."""

    class OverError(Exception):
        pass

    on_epoch_end = trainer.on_epoch_end

    def end_of_epoch() -> None:
        on_epoch_end()
        each_epoch()
        if time.monotonic() > deadline:
            raise OverError

    trainer.on_epoch_end = end_of_epoch
    with suppress(OverError):
        yield


def sample(trainer: Any, begin: float) -> dict[str, Any]:
    """What the training and its workers hold now."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    teacher = getattr(trainer, "teacher", None)
    return {
        "seconds": time.monotonic() - begin,
        "memory_mib": sum(memory(process) for process in processes) / 2**20,
        "files": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
        "processes": len(processes),
        "teacher": weights_hash(teacher.network.state_dict()) if teacher else None,
    }


def memory(process: psutil.Process) -> int:
    """Memory of a process in bytes; pages that it shares count for its part."""
    with suppress(OSError, KeyError):  # Linux: without the pages of libraries, which come and go with other programs
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
        return int(dict(line.split(":") for line in lines)["Pss_Anon"].split()[0]) * 1024
    return process.memory_full_info().uss


def report(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the lowest value of each third of the time: between them Python's garbage waits for its collection."""
    print("| trainer | | lowest, first third | second | last | highest |\n|---|---|---|---|---|---|")
    for name, samples in results.items():
        third = -(-len(samples) // 3)
        for key, title in COUNTED.items():
            values = [each[key] for each in samples]
            lows = [min(values[start : start + third]) for start in range(0, len(values), third)]
            print(f"| {name} | {title} | {' | '.join(f'{low:.0f}' for low in lows)} | {max(values):.0f} |")
    for name, samples in results.items():
        minutes, hashes = samples[-1]["seconds"] / 60, {each["teacher"] for each in samples}
        told = "" if hashes == {None} else f"; weights of its teacher: {len(hashes)} version(s)"
        print(f"\n{name}: {len(samples)} epochs of 50 iterations in {minutes:.0f} minutes{told}")


def thinned(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """About a hundred samples, the last among them."""
    return samples[:: max(1, len(samples) // 100)] + samples[-1:]


if __name__ == "__main__":
    main()

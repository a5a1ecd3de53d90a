"""A benchmark killed in the middle of each kind of step, and continued, gives what an undisturbed one gives.

    python benchmarks/kill_and_resume.py --work /tmp/kill [--snakemake]

Runs a tiny benchmark on the demo's synthetic images twice on the CPU: once undisturbed, once with SIGKILL to the
whole tree of processes in the middle of every kind of step. Compares weights, predictions and metrics bit by bit.
With --snakemake a third run goes through Snakemake with two jobs at once. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import SimpleITK as sitk

from nnunetv2_sikd.demo.dataset import NUM_TEST, NUM_TRAINING, SOURCE, write_datasets
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import FOLDER_VARIABLES, stock_command, with_trainers

SPECIFICATION = """\
title: Tiny
source:
  dataset: 901
  configuration: 2d_tiny
  derive: { from: 2d, patch_size: [64, 64], batch_size: 4, features_per_stage: [8, 16, 24] }
tests:
  - { key: source, dataset: 901 }
  - { key: target, dataset: 902 }
arms: { stock: nnUNetTrainer, sikd: nnUNetTrainer_SIKDStudent }
schedule: { epochs: 3, iterations: 10 }
seeds: [0]
"""
TRAINERS = [f"nnUNetTrainer{kind}_seed0_3epochs_10iterations" for kind in ("", "_SIKDTeacher", "_SIKDStudent")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="new folder for everything")
    parser.add_argument("--snakemake", action="store_true", help="also run through Snakemake, two jobs at once")
    args = parser.parse_args()
    args.work.mkdir(parents=True)
    raw = args.work.resolve() / "raw"
    raw.mkdir()
    write_datasets(raw)
    undisturbed, killed = (Tree(args.work.resolve() / name, raw) for name in ("undisturbed", "killed"))
    undisturbed.run()
    for kind, is_in_the_middle in killed.moments().items():
        killed.run_and_kill(kind, is_in_the_middle)
    killed.run()
    compare(undisturbed, killed)
    if args.snakemake:
        by_snakemake = Tree(args.work.resolve() / "snakemake", raw)
        by_snakemake.run_snakemake()
        compare(undisturbed, by_snakemake)


class Tree:
    """nnU-Net's folders, and the benchmark in them."""

    def __init__(self, folder: Path, raw: Path) -> None:
        self.folder, self.output = folder, folder / "output"
        folders = dict(zip(FOLDER_VARIABLES, (raw, folder / "preprocessed", folder / "results"), strict=True))
        for path in folders.values():
            path.mkdir(parents=True, exist_ok=True)
        self.file = folder / "tiny.yaml"
        self.file.write_text(SPECIFICATION)
        self.environment = {
            **with_trainers(),
            **{name: str(path) for name, path in folders.items()},
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "1",
            "nnUNet_SIKD_force_teacher": "1",  # this teacher trains for seconds
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.command = [stock_command("nnUNetv2_sikd"), "benchmark", str(self.file), "-o", str(self.output)]
        self.command += ["-device", "cpu", "-np", "1"]

    def run(self) -> None:
        begin = time.monotonic()
        subprocess.run(self.command, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        print(f"{self.folder.name}: ran to its end in {time.monotonic() - begin:.0f} s")

    def run_snakemake(self) -> None:
        file = subprocess.run([*self.command, "--snakefile"], capture_output=True, text=True, check=True).stdout.strip()
        config = [f"benchmark={self.file}", f"output={self.output}", "device=cpu", "processes=1"]
        command = [stock_command("snakemake"), "-s", file, "--cores", "4", "--jobs", "2", "--config", *config]
        begin = time.monotonic()
        subprocess.run(command, env=self.environment, check=True, cwd=self.folder)
        print(f"{self.folder.name}: ran to its end in {time.monotonic() - begin:.0f} s")

    def moments(self) -> dict[str, Callable[[], bool]]:
        """For each kind of step, how to see from outside that it is in its middle."""
        data = self.folder / "preprocessed" / SOURCE
        cases, copies = data / "nnUNetPlans_2d", data / "nnUNetPlans_2d_SIKD_per_slice"
        predictions = self.output / "predictions" / "source" / "stock_seed0_fold0"
        logs = self.output / "logs"

        def training(trainer: str) -> Callable[[], bool]:
            return lambda: "Epoch 1" in read(logs / f"train_{trainer}_fold0.log")

        return {
            "prepare": lambda: 0 < count(cases, "*.pkl") < NUM_TRAINING,
            "copies": lambda: 0 < count(copies, "*") < NUM_TRAINING,
            **{f"train_{trainer}_fold0": training(trainer) for trainer in TRAINERS},
            "predict_source_stock_seed0_fold0": lambda: 0 < count(predictions, "*.nii.gz") < NUM_TEST,
            "evaluate_source_stock_seed0_fold0": lambda: "/" in read(logs / "evaluate_source_stock_seed0_fold0.log"),
            "report": lambda: count(self.output / "report", "**/*") > 0 or bool(read(logs / "report.log")),
        }

    def run_and_kill(self, kind: str, is_in_the_middle: Callable[[], bool]) -> None:
        process = subprocess.Popen(self.command, env=self.environment, stdout=subprocess.DEVNULL)
        while not is_in_the_middle():
            if process.poll() is not None:
                raise SystemExit(f"{kind}: ended before it could be killed (status {process.returncode})")
            time.sleep(0.002)
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(everyone, timeout=30)
        if (self.output / "steps" / f"{kind}.json").exists():
            raise SystemExit(f"{kind}: was over before it was killed")
        print(f"killed: {kind}, {len(everyone)} processes", flush=True)


def read(file: Path) -> str:
    return file.read_text(errors="replace") if file.is_file() else ""


def count(folder: Path, pattern: str) -> int:
    return len(list(folder.glob(pattern))) if folder.is_dir() else 0


def compare(one: Tree, other: Tree) -> None:
    for trainer in TRAINERS:
        hashes = {
            weights_hash(read_checkpoint(file)["network_weights"])
            for tree in (one, other)
            for file in tree.folder.glob(f"results/*/{trainer}__*/fold_0/checkpoint_final.pth")
        }
        report(f"{other.folder.name}: weights of {trainer}", len(hashes) == 1)
    predictions = sorted(one.output.glob("predictions/*/*/*.nii.gz"))
    same = [np.array_equal(labels(file), labels(other.output / file.relative_to(one.output))) for file in predictions]
    report(f"{other.folder.name}: {len(same)} predictions", all(same) and len(same) == 4 * NUM_TEST)
    tables = sorted(one.output.glob("evaluation/*/*/metrics.csv"))
    same = [file.read_bytes() == (other.output / file.relative_to(one.output)).read_bytes() for file in tables]
    report(f"{other.folder.name}: {len(same)} tables of metrics", all(same) and len(same) == 4)
    report(f"{other.folder.name}: report", (other.output / "report" / "report.html").is_file())


def report(what: str, is_same: bool) -> None:
    print(f"{what}: {'the same' if is_same else 'DIFFERENT'}", flush=True)
    if not is_same:
        raise SystemExit(1)


def labels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


if __name__ == "__main__":
    main()

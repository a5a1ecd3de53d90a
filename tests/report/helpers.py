"""A whole benchmark as it lies on disk, made up: images, predictions, metrics, records of cost, checkpoints."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK
import torch
import yaml

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import TestSet, Training
from nnunetv2_sikd.evaluation.report import COLUMNS
from nnunetv2_sikd.report.cost import teacher_of

ARMS = {
    "stock": ("nnUNetTrainer", "stock nnU-Net", 0.0),
    "sikd": ("nnUNetTrainer_SIKDStudent", "SIKD student", 0.04),
    "plain": ("nnUNetTrainer_SIKDStudent_teacherOnImages", "plain distillation", 0.0),
    "labelmap": ("nnUNetTrainer_SIKDStudent_teacherOnLabelMaps", "teacher on label maps", 0.01),
    "copy": ("nnUNetTrainer_SIKDStudent_copyView", "SIKD, copy view", 0.05),
    "alpha0p5": ("nnUNetTrainer_SIKDStudent_alpha0p5", "SIKD, α = 0.5", 0.02),
    "alpha1": ("nnUNetTrainer_SIKDStudent_alpha1", "SIKD, α = 1", 0.03),
    "alpha5": ("nnUNetTrainer_SIKDStudent_alpha5", "SIKD, α = 5", -0.03),
    "da5": ("nnUNetTrainerDA5", "strong augmentation (DA5)", 0.05),
    "da5-sikd": ("nnUNetTrainer_SIKDStudent_DA5", "DA5 + SIKD", 0.07),
}
"""Trainer, title and effect on unseen images, in Dice."""
LABELS = {"background": 0, "wall": 1, "cavity": 2}


@dataclass(frozen=True)
class FakeBenchmark:
    """A made-up benchmark: its file and its folders."""

    file: Path
    layout: Layout

    def metrics(self, test: str, training: str) -> Path:
        return self.layout.output / "evaluation" / test / training / "metrics.csv"


def make_benchmark(
    folder: Path,
    *,
    arms: Sequence[str] = ("stock", "sikd"),
    seeds: Sequence[int] = (0,),
    patients: int = 12,
    ending: str = ".nii.gz",
    missing: Sequence[str] = (),
) -> FakeBenchmark:
    """Write a benchmark below a folder whose nnU-Net folders the environment names.

    The source's test set has two volumes per patient and two labels, the unseen one a volume each and one label of
    another name. Predictions are there for the first seed of the first two arms.

    Args:
        folder: Parent of ``raw``, ``preprocessed`` and ``results``.
        arms: Some of ``ARMS``.
        seeds: Of the trainings; empty for none.
        patients: Of each test set.
        ending: ``.nii.gz`` or ``.png``.
        missing: Keys of trainings without results on the unseen test set.
    """
    for name, labels in (("Dataset901_Source", LABELS), ("Dataset902_Unseen", {"background": 0, "blood": 1})):
        raw = folder / "raw" / name
        for part in ("imagesTs", "labelsTs"):
            (raw / part).mkdir(parents=True)
        described = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": 0, "file_ending": ending}
        (raw / "dataset.json").write_text(json.dumps(described))
    preprocessed = folder / "preprocessed" / "Dataset901_Source"
    preprocessed.mkdir(parents=True)
    for name in ("dataset.json", "nnUNetPlans.json", "splits_final.json"):
        (preprocessed / name).write_text("{}")
    file = folder / "made_up.yaml"
    file.write_text(yaml.safe_dump(_description(arms, seeds), sort_keys=False, allow_unicode=True), encoding="utf-8")
    layout = Layout.of(file, folder / "output")
    random = np.random.default_rng(3)
    for test in layout.specification.tests:
        cases = make_cases(layout, test, patients, ending)
        difficulty = random.normal(0, 0.05, patients)
        trainings = list(layout.specification.trainings())
        for training in trainings:
            key = f"{test.key} {training.seed}"
            luck = np.random.default_rng(sum(map(ord, key))).normal(0, 0.01)
            if not (training.key in missing and test.key == "Unseen"):
                _write_metrics(layout, test, training, cases, difficulty, luck, ending, random)
            if training.arm in arms[:2] and training.seed == (seeds[0] if seeds else None):
                _write_predictions(layout, test, training, ending)
    for number, training in enumerate(layout.specification.trainings()):
        write_records(layout, training, number)
    return FakeBenchmark(file, layout)


def make_cases(layout: Layout, test: TestSet, patients: int, ending: str) -> list[str]:
    """Write images and references of a test set: a ring around a disc, both brighter than what is around."""
    source = test.key == "Source"
    volumes = 2 if source else 1
    cases = [f"p{patient:02d}_v{volume}" for patient in range(patients) for volume in range(volumes)]
    for number, case in enumerate(cases):
        random = np.random.default_rng(number)
        label = draw_label(random.uniform(-4, 4, 2), 1.0 + 0.2 * random.random(), flat=ending == ".png")
        image = np.array([40.0, 90.0, 190.0])[label] + random.normal(0, 12, label.shape)
        write_image(layout.images(test) / f"{case}_0000{ending}", image.clip(0, 255).astype(np.uint8))
        write_image(layout.references(test) / f"{case}{ending}", label if source else (label == 2).astype(np.uint8))
    return cases


def draw_label(shift: np.ndarray, size: float, *, flat: bool) -> np.ndarray:
    """``(Z, Y, X)``: 1 is the ring, 2 the disc, largest in the slice 2."""
    y, x = np.meshgrid(np.arange(72) - 36, np.arange(80) - 40, indexing="ij")
    radius = np.hypot(y - shift[0], x - shift[1])
    slices = [2 - np.digitize(radius, [9 * size * s, 15 * size * s]) for s in ([1.0] if flat else [0.6, 0.9, 1.0, 0.7])]
    return np.stack(slices).astype(np.uint8)


def write_image(file: Path, array: np.ndarray) -> None:
    """Write ``(Z, Y, X)`` as NIfTI with thick slices, or its only slice as PNG."""
    if file.suffix == ".png":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array[0]), str(file))
        return
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 8.0))
    SimpleITK.WriteImage(image, str(file))


def write_records(layout: Layout, training: Training, number: int) -> None:
    """Write what training and prediction cost, and a checkpoint; the teacher's as well."""
    teacher = teacher_of(training)
    for trainer in [training.trainer, *([teacher] if teacher else [])]:
        folder = layout.fold(trainer, training.fold)
        folder.mkdir(parents=True, exist_ok=True)
        seconds = [30.0 if trainer == teacher else 36.0 if teacher else 32.0] * 15
        cost = {
            "trainer": trainer,
            "device": "Fake GPU",
            "epochs": 15,
            "seconds_per_epoch": seconds,
            "total_seconds": sum(seconds),
            "peak_memory_mib": {"resident": 900.0, "cuda_allocated": 2100.0 if teacher else 2000.0},
        }
        (folder / "training_cost.json").write_text(json.dumps(cost))
        (folder / "checkpoint_final.pth").touch()
    record = {"alpha": 2.0, "teacher_sha256": f"{number:064x}", "teacher_pseudo_dice": {"wall": 0.91, "cavity": 0.95}}
    weight = torch.full((3, 4), float(number))
    checkpoint = {
        "network_weights": {"encoder.weight": weight, "decoder.encoder.weight": weight},
        "init_args": {"sikd": record} if teacher else {},
        "trainer_name": training.trainer,
    }
    torch.save(checkpoint, layout.fold(training.trainer, training.fold) / "checkpoint_final.pth")
    for test in layout.specification.tests:
        output = layout.predictions(test, training)
        output.mkdir(parents=True, exist_ok=True)
        predicted = {"seconds": 24.0, "cases": 12, "device": "cuda", "peak_memory_mb": 1500.0}
        (output / "prediction_cost.json").write_text(json.dumps(predicted))


def _description(arms: Sequence[str], seeds: Sequence[int]) -> dict[str, object]:
    return {
        "title": "Made up: source to unseen",
        "source": {"dataset": "Dataset901_Source"},
        "tests": [
            {"key": "Source", "dataset": "Dataset901_Source", "title": "Source, own test patients", "patient": r"p\d+"},
            {"key": "Unseen", "dataset": 902, "title": "Elsewhere, unseen", "labels": {"cavity": "blood"}},
        ],
        "arms": {key: {"trainer": ARMS[key][0], "title": ARMS[key][1]} for key in arms},
        "schedule": {"epochs": 15, "iterations": 100},
        "seeds": list(seeds),
    }


def _write_metrics(
    layout: Layout,
    test: TestSet,
    training: Training,
    cases: Sequence[str],
    difficulty: np.ndarray,
    luck: float,
    ending: str,
    random: np.random.Generator,
) -> None:
    folder = layout.evaluation(test, training)
    folder.mkdir(parents=True)
    effect = ARMS[training.arm][2] if test.key == "Unseen" else -0.1 * ARMS[training.arm][2]
    unit = "px" if ending == ".png" else "mm"
    with (folder / "metrics.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for case in cases:
            for label in ("wall", "cavity") if test.key == "Source" else ("blood",):
                level = {"wall": 0.78, "cavity": 0.88, "blood": 0.76}[label]
                own = (luck if training.arm == "stock" else 1.5 * luck) + random.normal(0, 0.02)
                dice = float(np.clip(level + difficulty[int(case[1:3])] + effect + own, 0.02, 0.99))
                distance = 20 * (1 - dice)
                numbers = [dice, dice / (2 - dice), 2 * distance, distance, distance / 4, 0.9 * dice, 30.0, 28.0]
                writer.writerow([case, label, "none", unit, *map(repr, numbers)])


def _write_predictions(layout: Layout, test: TestSet, training: Training, ending: str) -> None:
    output = layout.predictions(test, training)
    output.mkdir(parents=True, exist_ok=True)
    for file in sorted(layout.references(test).glob(f"*{ending}")):
        random = np.random.default_rng(sum(map(ord, file.name + training.arm)))
        number = sorted(layout.references(test).glob(f"*{ending}")).index(file)
        made = np.random.default_rng(number)
        shift, size = made.uniform(-4, 4, 2), 1.0 + 0.2 * made.random()
        label = draw_label(shift + random.normal(0, 1.5, 2), size * random.uniform(0.85, 1.05), flat=ending == ".png")
        write_image(output / file.name, label)

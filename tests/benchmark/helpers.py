"""Raw data sets of empty files, and benchmark files: what planning and checking look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_sikd.benchmark.layout import Layout

SOURCE, TARGET = "Dataset901_Source", "Dataset902_Target"
SPECIFICATION: dict[str, Any] = {
    "title": "Tiny",
    "source": {"dataset": 901},
    "tests": [
        {"key": "own", "dataset": 901, "patient": "patient\\d+"},
        {"key": "other", "dataset": TARGET, "labels": {"core": "inner"}, "slices": True},
    ],
    "arms": {
        "stock": "nnUNetTrainer",
        "sikd": {"trainer": "nnUNetTrainer_SIKDStudent", "title": "Student"},
        "alpha1": "nnUNetTrainer_SIKDStudent_alpha1",
    },
    "schedule": {"epochs": 2, "iterations": 3},
    "seeds": [0],
}


def write_raw(
    folder: Path,
    name: str,
    *,
    training: Sequence[str] = (),
    test: Sequence[str] = (),
    ending: str = ".nii.gz",
    channels: int = 1,
    labels: Sequence[str] = ("shell", "core"),
) -> Path:
    """Write a raw data set into nnU-Net's folder for them; its files are empty."""
    raw = folder / "raw" / name
    for part, cases in (("Tr", training), ("Ts", test)):
        for kind in ("images", "labels"):
            (raw / f"{kind}{part}").mkdir(parents=True)
        for case in cases:
            (raw / f"labels{part}" / f"{case}{ending}").touch()
            for channel in range(channels):
                (raw / f"images{part}" / f"{case}_{channel:04d}{ending}").touch()
    content = {
        "channel_names": {str(number): f"contrast {number}" for number in range(channels)},
        "labels": {label: number for number, label in enumerate(["background", *labels])},
        "numTraining": len(training),
        "file_ending": ending,
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    return raw


def write_both(folder: Path) -> None:
    """Source with six training and two test cases, target with two test cases."""
    write_raw(folder, SOURCE, training=[f"case_{i}" for i in range(6)], test=["patient001_early", "patient001_late"])
    write_raw(folder, TARGET, test=["a", "b"], labels=("inner", "wall"))


def write_benchmark(folder: Path, content: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a benchmark file."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**(content or SPECIFICATION), **changes}, sort_keys=False))
    return file


def layout_of(folder: Path, **changes: Any) -> Layout:
    """Layout of the benchmark file with some keys changed."""
    return Layout.of(write_benchmark(folder, **changes), folder / "output")

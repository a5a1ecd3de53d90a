"""``nnUNetv2_sikd evaluate`` against ``nnUNetv2_evaluate_folder``, and surface-distance against MONAI.

Runs whole commands in turn on the same files and compares their time and their numbers; then compares each case's
distances with MONAI's.

    python benchmarks/evaluation.py Dataset101/labelsTs predictions --rounds 3 --json evaluation.json

``predictions`` must hold the dataset.json and plans.json that nnUNetv2_predict writes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

from nnunetv2_sikd.environment import stock_command
from nnunetv2_sikd.evaluation.files import load_dataset_json
from nnunetv2_sikd.evaluation.labels import LabelTable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("-np", default="2")
    parser.add_argument("--tolerance", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure_time(args, Path(folder))
        result["largest_difference_from_nnunet"] = difference_from_nnunet(Path(folder))
        result["difference_from_monai"] = difference_from_monai(args, Path(folder))
    text = json.dumps(result, indent=1)
    print(text)
    if args.json:
        args.json.write_text(text)


def measure_time(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pair = [str(args.references), str(args.predictions)]
    stock = [stock_command("nnUNetv2_evaluate_folder"), *pair, "-o", str(folder / "stock.json")]
    stock += ["-djfile", str(args.predictions / "dataset.json"), "-pfile", str(args.predictions / "plans.json")]
    ours = [stock_command("nnUNetv2_sikd"), "evaluate", *pair, "-o", str(folder), "--tolerance", str(args.tolerance)]
    commands = {
        "nnUNetv2_evaluate_folder": stock,
        f"nnUNetv2_evaluate_folder -np {args.np}": [*stock, "-np", args.np],
        "nnUNetv2_evaluate_folder -np 1": [*stock, "-np", "1"],
        "nnUNetv2_sikd evaluate": ours,
        "nnUNetv2_sikd evaluate --help": [*ours, "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratios = {name: median["nnUNetv2_sikd evaluate"] / value for name, value in median.items()}
    return {"seconds": seconds, "median": median, "our_time_to_theirs": ratios, "cores": os.cpu_count()}


def difference_from_nnunet(folder: Path) -> float:
    """Largest difference of any of nnU-Net's numbers of any case."""
    ours, stock = (load_summary_json(str(folder / name)) for name in ("summary.json", "stock.json"))
    return max(
        abs(ours_case["metrics"][label][name] - value)
        for ours_case, case in zip(ours["metric_per_case"], stock["metric_per_case"], strict=True)
        for label, metrics in case["metrics"].items()
        for name, value in metrics.items()
        if not np.isnan(value)
    )


def difference_from_monai(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Our value minus MONAI's over cases and labels with both masks, in mm (surface Dice: 0 to 1)."""
    content, source = load_dataset_json(args.predictions / "dataset.json", [], "")
    labels = LabelTable.from_dataset_json(content, source)
    differences: dict[str, list[float]] = {}
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["empty"] == "none"]
    for row in rows:
        masks = []
        for side in (args.predictions, args.references):
            image = SimpleITK.ReadImage(str(side / f"{row['case']}{content['file_ending']}"))
            mask = np.isin(SimpleITK.GetArrayFromImage(image), labels.foreground[row["label"]])
            masks.append(torch.from_numpy(np.stack([~mask, mask])[None]))
        spacing = image.GetSpacing()[::-1]
        monais = {
            "hausdorff": compute_hausdorff_distance(*masks, spacing=spacing),
            "hausdorff95": compute_hausdorff_distance(*masks, percentile=95, spacing=spacing),
            "average_surface_distance": compute_average_surface_distance(*masks, symmetric=True, spacing=spacing),
            "surface_dice": compute_surface_dice(*masks, [args.tolerance], spacing=spacing, use_subvoxels=True),
        }
        for name, value in monais.items():
            differences.setdefault(name, []).append(float(row[name]) - value.item())
    return {
        name: {"mean": float(np.mean(values)), "largest": float(np.max(np.abs(values))), "n": len(values)}
        for name, values in differences.items()
    }


if __name__ == "__main__":
    main()

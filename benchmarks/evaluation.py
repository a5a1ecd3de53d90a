"""``nnUNetv2_sikd evaluate`` against ``nnUNetv2_evaluate_folder``, and surface-distance against MONAI.

Runs whole commands in turn on the same files and compares their time and their numbers; then compares each case's
distances with MONAI's.

    python benchmarks/evaluation.py Dataset101/labelsTs predictions         # four minutes on two cores for 20 volumes

``predictions`` must hold the dataset.json and plans.json that nnUNetv2_predict writes.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from measuring import RESULTS, command, machine, ratios, report, spread, table, take_turns, told
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from nnunetv2.evaluation.evaluate_predictions import load_summary_json

from nnunetv2_sikd.environment import stock_command
from nnunetv2_sikd.evaluation.files import load_dataset_json
from nnunetv2_sikd.evaluation.labels import LabelTable

OURS = "nnUNetv2_sikd evaluate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("-np", default="2")
    parser.add_argument("--tolerance", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS / "evaluation.json")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        runs = measure_time(args, Path(folder))
        from_nnunet = difference_from_nnunet(Path(folder))
        from_monai = difference_from_monai(args, Path(folder))
        cases = len(load_summary_json(str(Path(folder) / "summary.json"))["metric_per_case"])
    values = {name: {key: [run[key] for run in each] for key in each[0]} for name, each in runs.items()}
    rows = []
    for name, value in values.items():
        ratio = {key: ratios(values[OURS][key], value[key]) for key in ("wall", "cpu")}
        per_case = spread([seconds / cases for seconds in value["wall"]])
        cells = [told(spread(value["wall"]), ".1f"), told(per_case), told(spread(value["cpu"]), ".1f")]
        cells += [told(ratio[key]) for key in ratio] if "--help" not in name else ["", ""]
        rows.append((f"`{name}`", *cells))
    header = ("command", "s", "s per volume", "CPU s", "our time to its", "our CPU time to its")
    distances = [
        (name, *(f"{value[key]:.3g}" for key in ("mean", "largest")), str(value["n"]))
        for name, value in from_monai.items()
    ]
    text = f"{cases} volumes\n\n{table(header, rows)}\n\nLargest difference from nnU-Net's numbers: {from_nnunet}\n\n"
    text += table(("ours minus MONAI's", "mean", "largest", "n"), distances)
    result = {"cases": cases, "runs": values, "largest_difference_from_nnunet": from_nnunet}
    report(text, {**result, "difference_from_monai": from_monai}, args.json, before)


def measure_time(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    pair = [str(args.references), str(args.predictions)]
    stock = [stock_command("nnUNetv2_evaluate_folder"), *pair, "-o", str(folder / "stock.json")]
    stock += ["-djfile", str(args.predictions / "dataset.json"), "-pfile", str(args.predictions / "plans.json")]
    ours = [stock_command("nnUNetv2_sikd"), "evaluate", *pair, "-o", str(folder), "--tolerance", str(args.tolerance)]
    lines = {
        "nnUNetv2_evaluate_folder": stock,
        f"nnUNetv2_evaluate_folder -np {args.np}": [*stock, "-np", args.np],
        "nnUNetv2_evaluate_folder -np 1": [*stock, "-np", "1"],
        OURS: ours,
        f"{OURS} --help": [*ours, "--help"],
    }
    arms = {name: (lambda line=line: command(line)) for name, line in lines.items()}
    return take_turns(arms, args.rounds, warmup=0)


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
        one, other = masks
        spacing = image.GetSpacing()[::-1]
        monais = {
            "hausdorff": compute_hausdorff_distance(one, other, spacing=spacing),
            "hausdorff95": compute_hausdorff_distance(one, other, percentile=95, spacing=spacing),
            "average_surface_distance": compute_average_surface_distance(one, other, symmetric=True, spacing=spacing),
            "surface_dice": compute_surface_dice(one, other, [args.tolerance], spacing=spacing, use_subvoxels=True),
        }
        for name, value in monais.items():
            differences.setdefault(name, []).append(float(row[name]) - value.item())
    return {
        name: {"mean": float(np.mean(values)), "largest": float(np.max(np.abs(values))), "n": len(values)}
        for name, values in differences.items()
    }


if __name__ == "__main__":
    main()

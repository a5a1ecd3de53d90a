"""Dice of one structure on a data set that numbers its labels otherwise than the training data set.

    python benchmarks/unseen_dice.py --reference Dataset102/labelsTs --reference_label 1 --label 3 \
        --stock predictions_stock --student predictions_student --csv dice.csv

Prints the mean of each model and the mean paired difference with a bootstrap 95 % interval over cases. One seed
per model: the interval does not hold the variation between trainings, which can be larger.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.stats import bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--reference_label", type=int, required=True)
    parser.add_argument("--label", type=int, required=True, help="of the same structure in the predictions")
    parser.add_argument("--stock", type=Path, required=True)
    parser.add_argument("--student", type=Path, required=True)
    parser.add_argument("--ending", default=".nii.gz")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    rows = []
    for file in sorted(args.reference.glob(f"*{args.ending}")):
        reference = read(file) == args.reference_label
        dice = [2 * np.sum(p & reference) / (np.sum(p) + np.sum(reference)) for p in predictions(file.name, args)]
        rows.append((file.name.removesuffix(args.ending), *dice))
    values = np.array([row[1:] for row in rows], dtype=float)
    difference = values[:, 1] - values[:, 0]
    interval = bootstrap((difference,), np.mean, n_resamples=9999, random_state=0).confidence_interval
    for name, column in zip(("stock", "student"), values.T, strict=True):
        print(f"{name}: mean Dice {column.mean():.3f}, sd {column.std(ddof=1):.3f}, minimum {column.min():.3f}")
    print(
        f"student - stock: {difference.mean():+.3f} (95 % {interval.low:+.3f} to {interval.high:+.3f}, n = {len(rows)})"
    )
    if args.csv:
        with args.csv.open("w", newline="") as stream:
            csv.writer(stream).writerows([("case", "stock", "student"), *rows])


def predictions(name: str, args: argparse.Namespace) -> list[np.ndarray]:
    return [read(folder / name) == args.label for folder in (args.stock, args.student)]


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


if __name__ == "__main__":
    main()

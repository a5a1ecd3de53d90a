"""Validation Dice of trainings: table by seed, with intervals over seeds and patients; CSV of the cases.

Reads what nnU-Net's own validation wrote (validation/summary.json); no test case is looked at. Trainers that differ in
their seed alone make one row; differences are those of the same seed and patient, to the first trainer.

    python benchmarks/validation.py -d 101 -c 2d_3mm_80_f8 -f 0 --patient 'patient\\d+' --csv validation.csv \\
        -tr nnUNetTrainer_seed{0..4}_20epochs_150iterations nnUNetTrainer_classJitter_seed{0..4}_20epochs_150iterations
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import pandas as pd
from measuring import table
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunetv2_sikd.commands.arguments import regular_expression
from nnunetv2_sikd.patients import patient_of
from nnunetv2_sikd.report.intervals import interval
from nnunetv2_sikd.stress.scores import by_seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", default="101", help="data set id")
    parser.add_argument("-c", default="2d", help="configuration")
    parser.add_argument("-f", default="0", help="fold")
    parser.add_argument("-p", default="nnUNetPlans", help="plans")
    parser.add_argument("-tr", nargs="+", required=True, help="trainers, what they are compared to first")
    parser.add_argument("--patient", type=regular_expression, help="what in a case's name is the patient")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    dataset = maybe_convert_to_dataset_name(int(args.d))
    groups = by_seed(args.tr)
    rows = [
        row
        for shared, trainings in groups.items()
        for seed, trainer in trainings.items()
        for row in read(Path(get_output_folder(dataset, trainer, args.p, args.c, args.f)), shared, seed, args.patient)
    ]
    if args.csv:
        with args.csv.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "dice": f"{row['dice']:.4f}"} for row in rows)
    print(summary(pd.DataFrame(rows), list(groups)))


def read(folder: Path, trainer: str, seed: str, pattern: str | None) -> list[dict[str, str | float]]:
    """Dice of each validation case and label that its reference has."""
    about = json.loads((folder.parent / "dataset.json").read_text())
    names = {str(tuple(v) if isinstance(v, list) else v): name for name, v in about["labels"].items()}
    found: list[dict[str, str | float]] = []
    for scores in json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]:
        case = Path(scores["prediction_file"]).name.removesuffix(about["file_ending"])
        patient = patient_of(case, pattern)
        if patient is None:
            raise SystemExit(f"--patient {pattern} finds nothing in the case {case}")
        found += [
            {
                "trainer": trainer,
                "seed": seed,
                "patient": patient,
                "case": case,
                "label": names[value],
                "dice": m["Dice"],
            }
            for value, m in scores["metrics"].items()
            if m["n_ref"] > 0
        ]
    return found


def summary(scores: pd.DataFrame, trainers: list[str]) -> str:
    """Mean Dice by seed and label, and the difference to the first trainer: means of patients, of their cases."""
    seeds = sorted(scores.seed.unique(), key=lambda seed: int(seed or -1))
    labels = list(scores.label.unique())
    of_cases = scores.groupby(["trainer", "seed", "patient", "case"]).dice.mean()
    dice = of_cases.groupby(level=[0, 1, 2]).mean()
    of_labels = scores.groupby(["trainer", "label", "seed", "patient"]).dice.mean().groupby(level=[0, 1]).mean()
    lines = []
    for trainer in trainers:
        own = dice[trainer].unstack("patient")
        cells = [f"{own.loc[seed].mean():.3f}" if seed in own.index else "–" for seed in seeds]
        cells += [f"**{own.to_numpy().mean():.3f}**", *(f"{of_labels[trainer, label]:.3f}" for label in labels)]
        differences = (own - dice[trainers[0]].unstack("patient")).dropna()
        if trainer == trainers[0] or differences.empty:
            cells.append("")
        else:
            low, high = interval(differences.to_numpy())
            cells.append(f"{differences.to_numpy().mean():+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append([f"`{trainer}`", *cells])
    return table(["trainer", *(f"seed {seed}" for seed in seeds), "mean", *labels, "minus the first's (95 %)"], lines)


if __name__ == "__main__":
    main()

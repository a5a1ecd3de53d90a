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

import numpy as np
import pandas as pd
from measuring import table
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import get_output_folder

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
    parser.add_argument("--patient", help="regular expression: what in a case's name is the patient")
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
            writer.writerows(rows)
    print(summary(pd.DataFrame(rows), list(groups)))


def read(folder: Path, trainer: str, seed: str, patient: str | None) -> list[dict[str, str | float]]:
    """Dice of each validation case and label of a training."""
    labels = json.loads((folder.parent / "dataset.json").read_text())["labels"]
    names = {str(value): name for name, value in labels.items()}
    found = []
    for scores in json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]:
        case = Path(scores["prediction_file"]).name.split(".")[0]
        of = patient_of(case, patient)
        if of is None:
            raise SystemExit(f"--patient {patient} finds nothing in the case {case}")
        for value, metrics in scores["metrics"].items():
            found.append(
                {
                    "trainer": trainer,
                    "seed": seed,
                    "patient": of,
                    "case": case,
                    "label": names[value],
                    "dice": round(metrics["Dice"], 4),
                }
            )
    return found


def summary(scores: pd.DataFrame, trainers: list[str]) -> str:
    """Mean Dice by seed and label, and the difference to the first trainer."""
    seeds, labels = sorted(scores.seed.unique()), list(scores.label.unique())
    # A case's mean over its labels, a patient's over its cases.
    by_patient = scores.groupby(["trainer", "seed", "patient", "case"]).dice.mean().groupby(level=[0, 1, 2]).mean()
    lines = []
    for trainer in trainers:
        own = by_patient[trainer].unstack("patient")
        of_labels = scores[scores.trainer == trainer].groupby(["label", "seed"]).dice.mean()
        cells = [f"{own.loc[seed].mean():.3f}" if seed in own.index else "–" for seed in seeds]
        cells += [f"**{own.to_numpy().mean():.3f}**", *(f"{of_labels[label].mean():.3f}" for label in labels)]
        if trainer != trainers[0]:
            differences = (own - by_patient[trainers[0]].unstack("patient")).dropna(how="all").to_numpy()
            low, high = interval(differences)
            cells.append(f"{np.mean(differences):+.3f} ({low:+.3f} to {high:+.3f})")
        else:
            cells.append("")
        lines.append([f"`{trainer}`", *cells])
    header = ["trainer", *(f"seed {seed}" for seed in seeds), "mean", *labels, "minus the first's (95 %)"]
    return table(header, lines)


if __name__ == "__main__":
    main()

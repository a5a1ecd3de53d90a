"""How well simulated shifts rank trainings as unseen images do: rank correlation and picture.

Takes a finished benchmark (its file and its report's scores.csv) and the folder of an ``nnUNetv2_sikd stress`` that has
scored its trainings. Each training is a point, each arm a mean.

    python benchmarks/stress_ranking.py cardiac_patches --scores cardiac_patches/report/scores.csv \\
        --stress stress_101 --test Sunnybrook --figure ranking.png
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measuring import RESULTS, machine, report, table
from scipy import stats

from nnunetv2_sikd.benchmark.file import load_specification
from nnunetv2_sikd.benchmark.specification import Specification
from nnunetv2_sikd.figures.drawing import new_figure, save_figure
from nnunetv2_sikd.stress.record import read_scores
from nnunetv2_sikd.stress.scores import COLUMNS, Dice, mean_dice, under_shift, without_shift

FIRST, *_, LAST = COLUMNS  # no shift, all that are summarised


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", help="its file, or the name of a shipped one")
    parser.add_argument("--scores", type=Path, required=True, help="scores.csv of its report")
    parser.add_argument("--stress", type=Path, required=True, help="folder of nnUNetv2_sikd stress")
    parser.add_argument("--test", required=True, help="key of the unseen test set")
    parser.add_argument("--json", type=Path, default=RESULTS / "stress_ranking.json")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    before = machine()
    specification = load_specification(args.benchmark)
    dice = mean_dice(read_scores(args.stress))
    frame = pd.read_csv(args.scores)
    frame["key"] = frame.arm + "_" + frame.training
    of_labels = frame[frame.test == args.test].groupby(["key", "label", "patient"]).dice.mean()
    unseen = of_labels.groupby(["key", "patient"]).mean().groupby("key").mean()
    fold = json.loads((args.stress / "stress.json").read_text(encoding="utf-8"))["settings"]["fold"]
    points: list[dict[str, Any]] = []
    for training in specification.trainings():
        if training.fold == fold and training.trainer in dice and training.key in unseen.index:
            points.append(
                {
                    "arm": training.arm,
                    "seed": training.seed,
                    **{column: dice_of(dice[training.trainer], shifts) for column, shifts in COLUMNS.items()},
                    "unseen": float(unseen[training.key]),
                }
            )
    means: dict[str, dict[str, float]] = {}
    by_arm = defaultdict(list)
    for point in points:
        by_arm[point["arm"]].append(point)
    for arm, each in by_arm.items():
        means[arm] = {key: float(np.mean([one[key] for one in each])) for key in (*COLUMNS, "unseen")}
    found = {}
    for name, rows in (("trainings", points), ("arms", list(means.values()))):
        for key in COLUMNS:
            pair = [[row[k] for row in rows] for k in (key, "unseen")]
            found[f"{name}, {key}"] = {"rho": float(stats.spearmanr(*pair).statistic), "n": len(rows)}
    told = [[name, str(each["n"]), f"{each['rho']:+.2f}"] for name, each in found.items()]
    text = table(["unseen Dice ranked by", "n", "Spearman's rho"], told)
    report(text, {"test": args.test, "points": points, "arms": means, "correlations": found}, args.json, before)
    if args.figure:
        draw(by_arm, specification, args)


def dice_of(dice: Dice, shifts: tuple[str, ...] | None) -> float:
    """Mean Dice over patients, under some shifts or (None) as they are."""
    found = without_shift(dice) if shifts is None else under_shift(dice, shifts)
    return float(np.mean(list(found.values())))


def draw(by_arm: Mapping[str, list[dict[str, Any]]], specification: Specification, args: argparse.Namespace) -> None:
    figure = new_figure(9, 3.9)
    panels = figure.subplots(1, 2, sharey=True)
    titles = ("validation cases as they are", "validation cases under simulated shifts")
    for axes, key, title in zip(panels, (FIRST, LAST), titles, strict=True):
        for number, (arm, each) in enumerate(by_arm.items()):
            x, y = ([one[k] for one in each] for k in (key, "unseen"))
            axes.scatter(x, y, s=14, color=f"C{number}", alpha=0.5)
            axes.scatter(
                np.mean(x), np.mean(y), s=60, color=f"C{number}", marker="D", label=specification.arm_title(arm)
            )
        axes.set_xlabel(f"mean Dice, {title}", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"mean Dice, {args.test}", fontsize=9)
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    save_figure(figure, args.figure)


if __name__ == "__main__":
    main()

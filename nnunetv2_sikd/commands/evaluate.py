"""Measure predictions against references, also of another data set.

Dice, IoU, Hausdorff distance, its 95th percentile, average surface distance, surface Dice and volumes, per case and
label, as nnU-Net's summary.json and as metrics.csv. Labels are matched by name.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_processes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd evaluate``."""
    parser.add_argument("gt_folder", type=Path, metavar="GT_FOLDER", help="folder of reference labels")
    parser.add_argument("pred_folder", type=Path, metavar="PRED_FOLDER", help="folder of predictions")
    parser.add_argument(
        "-djfile",
        type=Path,
        metavar="FILE",
        help="dataset.json of the data set the network was trained on (default: PRED_FOLDER/dataset.json)",
    )
    parser.add_argument(
        "-gt_djfile",
        type=Path,
        metavar="FILE",
        help="dataset.json of the references (default: the one beside or in GT_FOLDER)",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="PREDICTED=REFERENCE",
        help="labels whose names differ, for example LVC=LV",
    )
    parser.add_argument("-o", type=Path, metavar="FOLDER", help="where the results go (default: PRED_FOLDER)")
    add_processes(parser)
    parser.add_argument(
        "--tolerance",
        type=_tolerance,
        default=2.0,
        metavar="MM",
        help="of surface Dice, in mm, or pixels for images without spacing (default: %(default)s)",
    )
    parser.add_argument(
        "--slices",
        action="store_true",
        help="compare contours slice by slice (last axis of the file), for slices that form no volume",
    )
    parser.add_argument("--chill", action="store_true", help="evaluate the cases there are if predictions are missing")
    parser.add_argument(
        "--both_empty",
        choices=("exclude", "perfect"),
        default="exclude",
        help="neither file has the label: in no mean, or overlap 1 and distance 0 (default: %(default)s)",
    )
    parser.add_argument(
        "--one_empty",
        choices=("diagonal", "exclude"),
        default="diagonal",
        help="one file lacks the label: distances are the image's diagonal, or in no mean (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Evaluate, and print the means."""
    from nnunetv2_sikd.evaluation import EmptyMaskPolicy, evaluate_folder
    from nnunetv2_sikd.evaluation.labels import parse_label_map
    from nnunetv2_sikd.evaluation.report import notes, report

    evaluation = evaluate_folder(
        args.gt_folder,
        args.pred_folder,
        prediction_dataset_json=args.djfile,
        reference_dataset_json=args.gt_djfile,
        label_map=parse_label_map(args.labels),
        output=args.o,
        num_processes=args.np,
        tolerance=args.tolerance,
        per_slice=args.slices,
        chill=args.chill,
        policy=EmptyMaskPolicy(both=args.both_empty, one=args.one_empty),
    )
    print(f"\n{report(evaluation.summary)}\n")
    for line in notes(evaluation.summary):
        print(line)
    print(f"Written: {evaluation.output / 'summary.json'} and metrics.csv")


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value

"""Draw figures of a trained fold: intensities per class, and features of teacher, student and stock network.

intensities.png shows each class in the images and in the class averages of the fold's validation cases,
features.png the penultimate features of the networks on one slice; a CSV beside each has the numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_dataset, fold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd figures``."""
    add_dataset(parser)
    parser.add_argument("-f", required=True, type=fold, metavar="FOLD", help="trained fold (0 1 2 ... or all)")
    parser.add_argument(
        "-tr",
        default="nnUNetTrainer_SIKDStudent",
        metavar="TRAINER",
        help="student's trainer; its teacher's follows from it (default: %(default)s)",
    )
    parser.add_argument(
        "-stock",
        default=None,
        metavar="TRAINER",
        help="trainer to compare with, left out where it is not trained (default: stock nnU-Net with the "
        "student's augmentation, seed and schedule)",
    )
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="folder for the figures")
    parser.add_argument(
        "--case", default=None, metavar="CASE", help="case whose features are drawn (default: first validation case)"
    )
    parser.add_argument(
        "--slice",
        default=None,
        type=_index,
        metavar="N",
        help="its slice as preprocessed, counted from 0 (default: the one with the most foreground classes, then "
        "pixels)",
    )
    parser.add_argument(
        "-device",
        default="cpu",
        choices=("cpu", "cuda", "mps"),
        help="where the networks run, one patch a case (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Draw the figures and name the files."""
    from nnunetv2_sikd.figures.fold import draw_figures
    from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    files = draw_figures(planned, args.f, args.tr, args.stock, args.o, args.case, args.slice, args.device)
    print("\nWritten:", *files, sep="\n  ")


def _index(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no slice's number: slices are counted from 0")
    return int(text)

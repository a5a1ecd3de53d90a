"""Test trained folds on their validation cases under simulated shifts: a choice of trainer without target data.

Contrast inversion and remapping, gamma, class levels, bias field, noise, blur, resolution and ghosting, each from no
change to a strong one. Writes a table (stress.md), every score (stress.csv), Dice over severity (stress.png), the
differences to the first trainer (differences.png), what the shifts look like (shifts.png) and what the trainers find
under the strongest (examples.png).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_dataset, add_device, fold, positive, regular_expression


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd stress``."""
    add_dataset(parser)
    parser.add_argument("-f", required=True, type=fold, metavar="FOLD", help="trained fold (0 1 2 ...)")
    parser.add_argument(
        "-tr",
        nargs="+",
        required=True,
        metavar="TRAINER",
        help="trained trainers; the others are compared with the first",
    )
    parser.add_argument("-o", required=True, type=Path, metavar="FOLDER", help="folder for scores, table and pictures")
    parser.add_argument(
        "--severities", type=positive, default=3, metavar="N", help="steps to the strongest (default: %(default)s)"
    )
    parser.add_argument(
        "--cases", type=positive, default=None, metavar="N", help="validation cases, evenly spread (default: all)"
    )
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring in prediction, as in nnUNetv2_predict")
    parser.add_argument(
        "--patient",
        type=regular_expression,
        default=None,
        metavar="REGEX",
        help="finds the patient in a case's name, for intervals (default: each case is another patient)",
    )
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Test, and name the files."""
    from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
    from nnunetv2_sikd.stress.run import stress

    planned = PlannedConfiguration.load(args.d, args.c, args.p)
    files = stress(
        planned,
        args.f,
        args.tr,
        args.o,
        severities=args.severities,
        num_cases=args.cases,
        device=args.device,
        mirroring=not args.disable_tta,
        patient=args.patient,
    )
    print("Written:", *files, sep="\n  ")

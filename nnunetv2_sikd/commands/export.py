"""Export a trained model as a zip that a stock nnU-Net installs and predicts with.

nnUNetv2_install_pretrained_model_from_zip installs it; nnUNetv2_predict needs nothing of this package then.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_dataset, fold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd export``."""
    add_dataset(parser)
    parser.add_argument("-o", required=True, type=Path, metavar="ZIP", help="file to write; must not exist")
    parser.add_argument(
        "-tr",
        default="nnUNetTrainer_SIKDStudent",
        metavar="TRAINER",
        help="trainer: a student's, or a stock one of this package (default: %(default)s)",
    )
    parser.add_argument(
        "-f", type=fold, nargs="+", default=[0, 1, 2, 3, 4], metavar="FOLD", help="folds (default: 0 1 2 3 4)"
    )


def run(args: argparse.Namespace) -> None:
    """Write the zip and say how to use it."""
    from nnunetv2_sikd.export import export_model

    export_model(args.d, args.c, args.p, trainer=args.tr, folds=args.f, output=args.o)
    folds = " ".join(str(each) for each in args.f)
    print(
        f"\n{args.o} is written. On any nnU-Net installation:\n"
        f"  nnUNetv2_install_pretrained_model_from_zip {args.o}\n"
        f"  nnUNetv2_predict -i INPUT -o OUTPUT -d {args.d} -c {args.c} -p {args.p} -tr {args.tr} -f {folds}"
    )

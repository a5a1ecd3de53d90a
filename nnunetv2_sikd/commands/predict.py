"""Predict another data set with one trained fold: nnUNetv2_predict, checked before and continued when it was cut."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_dataset, add_device, fold, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd predict``."""
    parser.add_argument(
        "-i", required=True, type=Path, metavar="IMAGES", help="folder of images (case_0000.nii.gz, ...)"
    )
    parser.add_argument("-o", required=True, type=Path, metavar="OUTPUT", help="folder for the predictions")
    add_dataset(parser)
    parser.add_argument("-f", required=True, type=fold, metavar="FOLD", help="fold to predict with")
    parser.add_argument(
        "-tr", default="nnUNetTrainer_SIKDStudent", metavar="TRAINER", help="its trainer (default: %(default)s)"
    )
    add_device(parser)
    parser.add_argument(
        "-np", type=positive, default=2, metavar="N", help="processes to read and to write, each (default: %(default)s)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace predictions of another training, or of other images, that this command has made there",
    )


def run(args: argparse.Namespace) -> None:
    """Predict."""
    from nnunetv2_sikd.prediction import predict

    predict(
        args.i,
        args.o,
        args.d,
        args.c,
        args.p,
        fold=args.f,
        trainer=args.tr,
        device=args.device,
        num_processes=args.np,
        overwrite=args.overwrite,
    )

"""Average raw images by class, for nnUNetv2_predict with a teacher.

A teacher segments class-averaged images only. This writes them in nnU-Net's raw format from images and
their reference labels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd average``."""
    add_dataset(parser)
    parser.add_argument(
        "-i", required=True, type=Path, metavar="IMAGES", help="folder of images (case_0000.nii.gz, ...)"
    )
    parser.add_argument(
        "-l", required=True, type=Path, metavar="LABELS", help="folder of their labels (case.nii.gz, ...)"
    )
    parser.add_argument("-o", required=True, type=Path, metavar="OUTPUT", help="folder for the averaged images")


def run(args: argparse.Namespace) -> None:
    """Write the averaged images."""
    from nnunetv2_sikd.preprocessing.images import average_images
    from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

    average_images(PlannedConfiguration.load(args.d, args.c, args.p), args.i, args.l, args.o)

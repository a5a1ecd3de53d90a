"""Run the embedded example: train stock, teacher and student on synthetic images of two scanners.

Takes a few minutes on two CPU cores, needs no data and no nnUNet_* variables, and leaves everything in one
folder. A second run continues where the first one stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd demo``."""
    parser.add_argument(
        "-o",
        type=Path,
        default=Path("sikd_demo"),
        metavar="FOLDER",
        help="folder for everything (default: %(default)s)",
    )
    parser.add_argument(
        "-device", default="cpu", choices=("cuda", "cpu", "mps"), help="where to train (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> None:
    """Run the demo."""
    from nnunetv2_sikd.demo.run import run_demo

    run_demo(args.o, args.device)

"""Train teacher and student in one command: copies, teacher, student.

Each step runs nnU-Net's own command, is skipped when done and continued when it was interrupted. Any other trainer
can be named too: it is trained in the same way.
"""

from __future__ import annotations

import argparse

from nnunetv2_sikd.commands.arguments import add_dataset, add_device, add_processes, fold, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd train``."""
    add_dataset(parser)
    parser.add_argument(
        "-f", required=True, type=fold, nargs="+", metavar="FOLD", help="folds to train (0 1 2 ... or all)"
    )
    parser.add_argument(
        "-tr",
        default="nnUNetTrainer_SIKDStudent",
        metavar="TRAINER",
        help="trainer; a student's teacher follows from it (default: %(default)s)",
    )
    add_device(parser)
    add_processes(parser)
    parser.add_argument("-num_gpus", type=positive, default=1, metavar="N", help="GPUs per training (default: 1)")
    parser.add_argument("--npz", action="store_true", help="save the softmax outputs of the final validation")


def run(args: argparse.Namespace) -> None:
    """Train all folds one after the other."""
    from nnunetv2_sikd.training import train

    for each in args.f:
        train(
            args.d,
            args.c,
            args.p,
            fold=each,
            trainer=args.tr,
            device=args.device,
            num_gpus=args.num_gpus,
            num_processes=args.np,
            npz=args.npz,
        )

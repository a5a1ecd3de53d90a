"""Plan and preprocess a data set as far as it has not been done, also at another resolution.

Runs nnU-Net's own commands. With --base it first adds a configuration to the plans, for example one that two CPU
cores can train.
"""

from __future__ import annotations

import argparse

from nnunetv2_sikd.commands.arguments import add_dataset, add_processes, positive

_CHANGES = ("spacing", "patch_size", "batch_size", "features_per_stage")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd prepare``."""
    add_dataset(parser)
    add_processes(parser)
    parser.add_argument("--base", metavar="CONFIGURATION", help="configuration that the one of -c is derived from")
    parser.add_argument("--spacing", type=float, nargs="+", metavar="MM", help="its voxel spacing")
    parser.add_argument("--patch_size", type=positive, nargs="+", metavar="N", help="its patch size")
    parser.add_argument("--batch_size", type=positive, metavar="N", help="its batch size")
    parser.add_argument("--features_per_stage", type=positive, nargs="+", metavar="N", help="features of its stages")


def run(args: argparse.Namespace) -> None:
    """Prepare the data set."""
    from nnunetv2.configuration import default_num_processes

    from nnunetv2_sikd.errors import SIKDError
    from nnunetv2_sikd.preprocessing.prepare import prepare

    changes = {name: getattr(args, name) for name in _CHANGES if getattr(args, name) is not None}
    if changes and args.base is None:
        raise SIKDError(f"--{next(iter(changes))} needs --base: the configuration that -c {args.c} is derived from")
    prepare(
        args.d,
        args.c,
        args.p,
        base=args.base,
        changes=changes,
        num_processes=args.np or default_num_processes,
    )

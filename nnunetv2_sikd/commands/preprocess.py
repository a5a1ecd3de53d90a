"""Write class-averaged copies of preprocessed cases.

Run it after nnUNetv2_plan_and_preprocess. 2D configurations are averaged per slice, 3D ones per volume. A
second run writes only what is missing or changed.
"""

from __future__ import annotations

import argparse

from nnunetv2_sikd.commands.arguments import add_dataset, add_processes, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd preprocess``."""
    add_dataset(parser)
    add_processes(parser)
    parser.add_argument("--overwrite", action="store_true", help="make all copies anew")
    parser.add_argument(
        "--preview",
        type=positive,
        metavar="N",
        help="also draw image, class average and label of N cases into a PNG",
    )


def run(args: argparse.Namespace) -> None:
    """Write the copies, and the preview if asked."""
    from nnunetv2.configuration import default_num_processes

    from nnunetv2_sikd.preprocessing.hook import write_class_averages

    write_class_averages(
        args.d, args.c, args.p, num_processes=args.np or default_num_processes, overwrite=args.overwrite
    )
    if args.preview:
        from nnunetv2_sikd.preprocessing.preview import draw_preview

        print(f"Preview: {draw_preview(args.d, args.c, args.p, args.preview)}")

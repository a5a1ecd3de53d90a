"""Report of a benchmark: tables, intervals, tests, pictures, costs, as one HTML page, Markdown and CSV.

Reads whatever results there are, and says which are missing.
"""

from __future__ import annotations

import argparse

from nnunetv2_sikd.commands.benchmark import add_choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd report``."""
    add_choice(parser)
    parser.add_argument("--baseline", metavar="ARM", help="arm to compare with, instead of the file's baseline")


def run(args: argparse.Namespace) -> None:
    """Write the report."""
    from nnunetv2_sikd.benchmark.layout import Layout
    from nnunetv2_sikd.report.write import write_report

    layout = Layout.of(
        args.benchmark, args.o, arms=args.arms, folds=args.folds, seeds=args.seeds, baseline=args.baseline
    )
    print(f"Report: {write_report(layout)}")

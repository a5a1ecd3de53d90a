"""Compare trainers on data sets never seen: plan, train, predict, evaluate, report, all from one small file.

Steps that are done are skipped, one that was cut is continued. Shipped files: cardiac_patches, breast_patches,
cardiac_small, breast_small (two CPU cores), cardiac, breast (GPU).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetv2_sikd.commands.arguments import add_device, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnUNetv2_sikd benchmark``."""
    add_choice(parser)
    add_device(parser)
    parser.add_argument(
        "-np", type=positive, default=2, metavar="N", help="processes of each step but training (default: %(default)s)"
    )
    parser.add_argument(
        "--memory_mb",
        type=positive,
        default=24000,
        metavar="MB",
        help="memory of a step on a cluster (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show the steps")
    parser.add_argument("--only", metavar="STEP", help="run this step only (what a cluster's jobs do)")
    parser.add_argument("--snakefile", action="store_true", help="only print where the Snakefile is, for snakemake -s")


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Which benchmark, which part of it, and where its output is."""
    parser.add_argument("benchmark", metavar="BENCHMARK", help="YAML file, or name of a shipped one")
    parser.add_argument("-o", type=Path, metavar="OUTPUT", help="its folder (default: named like the file, here)")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms (and the baseline)")
    parser.add_argument("--folds", nargs="+", type=int, metavar="FOLD", help="instead of the file's folds")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="SEED", help="instead of the file's seeds")


def run(args: argparse.Namespace) -> None:
    """Run the benchmark, or show its steps."""
    if args.snakefile:
        print(Path(__file__).parents[1] / "benchmark" / "Snakefile")
        return

    from nnunetv2_sikd.benchmark.check import check_benchmark
    from nnunetv2_sikd.benchmark.file import as_file
    from nnunetv2_sikd.benchmark.layout import Layout
    from nnunetv2_sikd.benchmark.plan import Machine, plan_steps, show_steps
    from nnunetv2_sikd.benchmark.run import done_steps, run_benchmark, run_one
    from nnunetv2_sikd.devices import check_device
    from nnunetv2_sikd.errors import SIKDError

    layout = Layout.of(args.benchmark, args.o, arms=args.arms, folds=args.folds, seeds=args.seeds)
    if args.only is None:  # whoever starts single steps has checked the whole before
        check_benchmark(layout)
    steps = plan_steps(layout, as_file(args.benchmark), Machine(args.device, args.np, args.memory_mb))
    if args.dry_run:
        show_steps(steps, done_steps(steps, layout))
        return
    if args.only is not None:
        chosen = [step for step in steps if step.name == args.only]
        if not chosen:
            raise SIKDError(f"--only {args.only}: no such step; --dry-run lists them")
        run_one(chosen[0], steps, layout)
        return
    done = done_steps(steps, layout)
    if any("-device" in step.command for step in steps if step.name not in done):
        check_device(args.device)
    run_benchmark(steps, layout)
    print(f"\nReport: {layout.report() / 'report.html'}")

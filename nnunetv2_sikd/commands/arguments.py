"""Arguments that several subcommands share, named as nnU-Net names them."""

from __future__ import annotations

import argparse

from nnunetv2_sikd.patients import patient_pattern


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """``-d``, ``-c`` and ``-p``: data set, configuration, plans."""
    parser.add_argument("-d", required=True, metavar="DATASET", help="data set name or id")
    parser.add_argument("-c", default="2d", metavar="CONFIGURATION", help="configuration (default: %(default)s)")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans identifier (default: %(default)s)")


def add_processes(parser: argparse.ArgumentParser) -> None:
    """``-np``: number of processes."""
    parser.add_argument(
        "-np",
        type=positive,
        default=None,
        metavar="N",
        help="processes (default: nnU-Net's, nnUNet_def_n_proc)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """``-device``: where networks run."""
    parser.add_argument(
        "-device",
        default="cuda",
        choices=("cuda", "cpu", "mps"),
        help="where to compute (default: %(default)s)",
    )


def positive(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not _is_number(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def fold(text: str) -> int | str:
    """A fold: its number, or ``all``.

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    if text == "all":
        return text
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fold's number nor 'all'")
    return int(text)


def regular_expression(text: str) -> str:
    """A regular expression that finds patients.

    Raises:
        argparse.ArgumentTypeError: It is none, or finds nothing at all too.
    """
    try:
        return patient_pattern(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10  # other scripts have digits too

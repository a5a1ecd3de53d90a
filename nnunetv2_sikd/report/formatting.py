"""Numbers as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_sikd.report.scores import OVERLAP

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table of text, for HTML and Markdown alike.

    Attributes:
        headers: Of the columns.
        rows: Cells of each row; a row of one cell is a heading of those below it.
        text: Indices of the columns of text; the others are numbers, set right.
        note: What to know when reading it.
        groups: Title and number of columns of each group of columns, from the left; empty for no groups.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[int] = (0,)
    note: str = ""
    groups: Sequence[tuple[str, int]] = ()

    @property
    def full_headers(self) -> list[str]:
        """Headers that name their group, for formats without groups."""
        titles = [title for title, columns in self.groups for _ in range(columns)] or [""] * len(self.headers)
        return [f"{title}: {header}" if title else header for title, header in zip(titles, self.headers, strict=True)]


def value(metric: str, number: float) -> str:
    """A metric: overlap with three decimals, distances with one."""
    return NOTHING if math.isnan(number) else f"{number:.{_decimals(metric)}f}".replace("-", "−")


def signed(metric: str, number: float) -> str:
    """A difference, with its sign if it is not 0 as printed."""
    if math.isnan(number):
        return NOTHING
    decimals = _decimals(metric)
    shown = round(number, decimals)
    return f"{shown:+.{decimals}f}".replace("-", "−") if shown else f"{0:.{decimals}f}"


def interval(metric: str, low: float, high: float) -> str:
    """An interval of a difference."""
    return NOTHING if math.isnan(low) else f"{signed(metric, low)} to {signed(metric, high)}"


def p_value(number: float) -> str:
    """A p value, never as 0."""
    return NOTHING if math.isnan(number) else "< 0.001" if number < 0.001 else f"{number:.3f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if math.isnan(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def memory(mib: float) -> str:
    """MiB as GiB where that reads better."""
    return NOTHING if math.isnan(mib) else f"{mib:.0f} MiB" if mib < 1024 else f"{mib / 1024:.1f} GiB"


def count(number: int, noun: str) -> str:
    """``1 patient``, ``2 patients``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _decimals(metric: str) -> int:
    return 3 if metric in OVERLAP else 1

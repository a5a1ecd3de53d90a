"""The report of a benchmark: statistics, words and pictures into files."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import write_bytes, write_text
from nnunetv2_sikd.folders import check_output
from nnunetv2_sikd.report.canvas import Picture
from nnunetv2_sikd.report.page import make_page, render
from nnunetv2_sikd.report.provenance import record_rows
from nnunetv2_sikd.report.results import Results
from nnunetv2_sikd.report.scores import read_scores
from nnunetv2_sikd.untrusted import as_cell


def write_report(layout: Layout) -> Path:
    """Write the report of whatever results there are, in place of the one that is there.

    ``report.html`` holds everything; ``report.md`` is the same with its pictures in ``pictures/``; the tables are
    ``scores.csv`` (every case), ``summary_table.csv``, ``differences.csv`` and ``trainings.csv``. The record of the
    benchmark's ``report`` step goes: of other arms or against another baseline, this one is not what that step made.

    Args:
        layout: The benchmark and its files.

    Returns:
        ``report.html``, which is written last.

    Raises:
        SIKDError: There are no results, or the folder cannot be written.
    """
    check_output(layout.report())
    results = Results(layout, read_scores(layout))
    page = make_page(results)
    folder = layout.report()
    try:
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        layout.record("report").unlink(missing_ok=True)  # the step itself writes it after this
        _write_pictures(page.pictures, folder / "pictures")
        write_text(folder / "scores.csv", _csv(results.frame))
        write_text(folder / "summary_table.csv", _csv(results.summary))
        write_text(folder / "differences.csv", _csv(results.differences))
        write_text(folder / "trainings.csv", _csv(pd.DataFrame(record_rows(list(page.records)))))
        write_text(folder / "report.md", render(page, "report.md"))
        write_text(folder / "report.html", render(page, "report.html"))
    except OSError as error:
        raise SIKDError(f"{folder}: cannot be written ({error.strerror}); name another folder with -o") from error
    return folder / "report.html"


def _write_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    for picture in pictures:
        write_bytes(folder / picture.name, picture.data)
    # Those of an earlier report, of other arms or test sets, would look like this one's.
    names = {picture.name for picture in pictures}
    for file in folder.iterdir():
        if file.name not in names and file.suffix in (".svg", ".png"):
            file.unlink()


def _csv(frame: Any) -> str:
    buffer = StringIO()
    told = frame.map(lambda value: as_cell(value) if isinstance(value, str) else value)
    told.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()

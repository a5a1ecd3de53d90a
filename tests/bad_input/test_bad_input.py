"""Whatever is wrong with the input is told in one line, and in the table of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bad_input import run as runner
from tests.bad_input.collection import ROWS, UNUSUAL
from tests.bad_input.rows import Row, Valid
from tests.bad_input.table import COMMANDS, DOCUMENT, REGENERATE, document, line


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where undamaged workspaces are made, once each."""
    return tmp_path_factory.mktemp("templates")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_told_in_one_line(row: Row, templates: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    with runner.workplace_of(row, folder, templates):
        outcome = runner.run(row, folder)
        in_detail = runner.run(row, folder, "--debug") if _has_debug(row) else None
    message = outcome.message(row)
    assert outcome.status == row.status, f"{outcome.started}\n{outcome.out}\n{outcome.err}"
    assert "Traceback" not in outcome.out + outcome.err
    for part in row.says:
        assert part in message
    assert runner.unexpected(outcome, row) == []
    assert str(folder) not in message
    if row.section == "doctor" and row.status == 1:
        assert message.startswith("[FAIL] ")
    elif row.status == 1:
        assert outcome.err.splitlines() == [
            next(each for each in outcome.err.splitlines() if each.startswith("Error: "))
        ]
        assert not re.search(r"[\r\n\t]", message)
    assert line(row, message) in DOCUMENT.read_text(encoding="utf-8").splitlines(), (
        f"{DOCUMENT.name} has no such line; if the message is meant, write the table anew with {REGENERATE}"
    )
    if in_detail is not None:
        assert in_detail.status == 1
        assert "Traceback (most recent call last)" in in_detail.err
        assert "SIKDError: " in in_detail.err  # and no error that nobody foresaw


def _has_debug(row: Row) -> bool:
    return row.status == 1 and row.section in COMMANDS and row.section != "doctor"


@pytest.mark.parametrize("row", UNUSUAL, ids=lambda row: row.name)
def test_unusual_input_works(row: Valid, templates: Path, tmp_path: Path) -> None:
    with runner.workplace_of(row, tmp_path / "w", templates):
        outcome = runner.run(row, tmp_path / "w")
        for file in row.makes:
            assert Path(file).is_file()
    assert outcome.started.startswith(row.starts)
    assert outcome.status == (None if row.starts else 0), outcome.err


def test_table_has_these_rows_and_no_others() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    empty = document(dict.fromkeys(ROWS, ""), UNUSUAL)
    without_messages = re.sub(r"^(\| (?:(?! \| ).)+ \| ).*$", r"\1", text, flags=re.MULTILINE)
    assert without_messages == re.sub(r"^(\| (?:(?! \| ).)+ \| ).*$", r"\1", empty, flags=re.MULTILINE), REGENERATE


def test_no_row_twice() -> None:
    names = [(row.command, row.title) for row in ROWS]
    assert sorted({each for each in names if names.count(each) > 1}) == []
    assert {row.section for row in ROWS} >= set(COMMANDS)


@pytest.mark.parametrize(("debug", "lines"), [("0", 1), ("1", None)])
def test_commands_of_nnunet_tell_in_one_line(debug: str, lines: int | None) -> None:
    code = (
        "from nnunetv2_sikd.errors import SIKDError, tell_in_one_line as t; t(); raise SIKDError('a.nii.gz: is empty')"
    )
    environment = {**os.environ, "nnUNet_SIKD_debug": debug}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    if lines:
        assert ended.stderr == "Error: a.nii.gz: is empty\n"
    else:
        assert "Traceback" in ended.stderr

"""The table in the documentation, made of what the commands said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bad_input.rows import Row, Valid

DOCUMENT = Path(__file__).parents[2] / "docs" / "bad-input.md"
REGENERATE = "python -m tests.bad_input"
COMMANDS = (
    "doctor",
    "prepare",
    "preprocess",
    "train",
    "predict",
    "evaluate",
    "benchmark",
    "report",
    "export",
    "average",
    "figures",
    "stress",
    "demo",
)

_HEAD = """\
# Bad input

Every bad input that the tests try, and the message it gets: {number} in all, at every command. The table is written by
`{regenerate}`, which runs all of them; `pytest tests/bad_input` runs them again and fails where the table or a message
is no longer true.

For each one it holds that the exit status is 1 (2 for what the command line's parser refuses), that standard error has
exactly one line that begins with `Error:`, that no traceback is shown, that `--debug` shows it, that the message names
the file at fault, and that nothing half-written is left: apart from whole files of earlier cases, and an empty lock
beside class-averaged copies, every file of the workspace is as before. `doctor` lists what it finds instead. At
nnU-Net's own command, `nnUNetv2_train`, the variable `nnUNet_SIKD_debug=1` stands for `--debug`.

`raw`, `preprocessed` and `results` are nnU-Net's three folders, paths are shown as seen from their parent, and `…`
stands for what another library says.
"""

_UNUSUAL = """\
## Unusual input that works

The same tests run these, and look for what the command makes.
"""


def line(row: Row, message: str) -> str:
    """A row of the table."""
    return f"| {row.title} | {_code(message)} |"


def headings(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by command line, in the order of the commands."""
    sections: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: COMMANDS.index(row.section) if row.section in COMMANDS else len(COMMANDS)):
        sections.setdefault(row.command, []).append(row)
    return sections


def document(messages: Mapping[Row, str], unusual: Iterable[Valid]) -> str:
    """The whole document."""
    parts = [_HEAD.format(number=len(messages), regenerate=REGENERATE)]
    for name in (*COMMANDS, None):
        sections = {
            command: rows
            for command, rows in headings(messages).items()
            if rows[0].section == name or (name is None and rows[0].section not in COMMANDS)
        }
        titles = {"distill": "nnUNetv2_sikd", "nnUNetv2_train": "nnUNetv2_train"}
        if name is not None:
            parts.append(f"\n## {name}\n")
        for command, rows in sections.items():
            if name is None:
                parts.append(f"\n## {titles[rows[0].section]}\n")
            typed = command if command.startswith("nnUNetv2") else f"nnUNetv2_sikd {command}"
            parts.append(f"\n`{typed}`\n\n| bad input | message |\n|---|---|\n")
            parts += [f"{line(row, messages[row])}\n" for row in rows]
    parts.append(f"\n{_UNUSUAL}\n| unusual input | command |\n|---|---|\n")
    parts += [f"| {each.title} | `nnUNetv2_sikd {each.command}` |\n" for each in unusual]
    return "".join(parts)


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|').replace('`', chr(39))}`"

"""Write ``docs/bad-input.md``: ``python -m tests.bad_input``; with words as arguments, show the rows that have them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bad_input import run as runner
from tests.bad_input.collection import ROWS, UNUSUAL
from tests.bad_input.table import DOCUMENT, document


def main(words: list[str]) -> None:
    messages = {}
    with tempfile.TemporaryDirectory() as temporary:
        for number, row in enumerate(ROWS):
            if not all(word in f"{row.command} {row.title}" for word in words):
                continue
            folder = Path(temporary) / f"w{number}"
            with runner.workplace_of(row, folder, Path(temporary) / "templates"):
                outcome = runner.run(row, folder)
            messages[row] = outcome.message(row)
            if words:
                print(f"{row.title}: exit status {outcome.status}, {messages[row]} {outcome.started}", flush=True)
                print(*(f"  left: {path}\n" for path in runner.unexpected(outcome, row)), sep="", end="")
    if not words:
        DOCUMENT.write_text(document(messages, UNUSUAL), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

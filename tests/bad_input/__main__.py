"""Write ``docs/bad-input.md``: ``python -m tests.bad_input``. With words as arguments: show the rows that have them."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.bad_input import run as runner
from tests.bad_input.collection import ROWS, UNUSUAL
from tests.bad_input.table import DOCUMENT, document


def main(words: list[str]) -> None:
    messages = {}
    with tempfile.TemporaryDirectory() as temporary:
        templates = Path(temporary) / "templates"
        for number, row in enumerate(ROWS):
            if words and not all(word in f"{row.command} {row.title}" for word in words):
                continue
            folder = Path(temporary) / str(number)
            begin = time.monotonic()
            with runner.workplace_of(row, folder, templates):
                outcome = runner.run(row, folder)
            messages[row] = outcome.message(row)
            if words:
                bad = "" if outcome.status == row.status and all(s in messages[row] for s in row.says) else "  <<<<"
                print(
                    f"{row.title} | {outcome.status} {time.monotonic() - begin:.2f}s{bad}\n    {messages[row]} {outcome.started}"
                )
                left = runner.unexpected(outcome, row)
                if left:
                    print("    LEFT", left)
                if len(outcome.err.splitlines()) != 1 and row.status == 1 and row.section != "doctor":
                    print("    ERR", outcome.err)
    if not words:
        DOCUMENT.write_text(document(messages, UNUSUAL), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

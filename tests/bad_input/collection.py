"""All rows, in the order of the files."""

from __future__ import annotations

from tests.bad_input import images, options, text_files, unusual

ROWS = (*images.rows(), *text_files.rows(), *options.rows())
UNUSUAL = tuple(unusual.rows())

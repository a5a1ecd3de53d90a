"""Names in files of others, before they become parts of paths, arguments of commands, or cells of a table."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import check_name

_ENDING = re.compile(r"(\.[A-Za-z0-9]+)+")
# Control characters, lone surrogates, which no file name has, and separators of lines and paragraphs.
_CONTROL = ("Cc", "Cs", "Zl", "Zp")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def check_part(name: Any) -> str:
    """Check that a name of something that is there stays in its folder, and is no option of a command.

    What this package creates must also be a name on every system: :func:`~nnunetv2_sikd.files.check_name`.

    Raises:
        ValueError: It would leave it, names no file, or begins like an option.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no name")
    if name.startswith("-"):
        raise ValueError(f"{name!r} begins with a hyphen, as options do; choose another name")
    if name in ("", ".", ".."):
        raise ValueError(f"{name!r} names no file; choose another name")
    bad = sorted({each for each in name if each in "/\\" or unicodedata.category(each) in _CONTROL})
    if bad:
        raise ValueError(f"{name!r} cannot be a file's name; leave out {' '.join(map(repr, bad))}")
    # There "C:x" would lead to another drive, and "x." to x.
    return check_name(name) if sys.platform == "win32" else name


def check_folder(folder: str) -> str:
    """Check that a folder lies inside the one that it is looked for in.

    Raises:
        ValueError: It is absolute, or leaves it.
    """
    for part in folder.split("/"):
        check_part(part)
    return folder


def check_names(names: Iterable[Any], file: Path, what: str) -> None:
    """Check names that a file has for files of the same folder.

    Args:
        names: The names.
        file: Where they stand.
        what: What they name, for the message.

    Raises:
        SIKDError: One would lead out of its folder.
    """
    for name in names:
        try:
            check_part(name)
        except ValueError as error:
            raise SIKDError(f"{file}: {what} {str(error)[:300]}") from error


def check_plans(plans: Mapping[str, Any], file: Path) -> None:
    """Check that what plans name files and folders by stays in nnU-Net's folders.

    Raises:
        SIKDError: A name would lead elsewhere, or is missing.
    """
    check_names([plans.get("dataset_name")], file, "dataset_name")
    check_names([plans.get("plans_name")], file, "plans_name")
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict) or not all(isinstance(each, dict) for each in configurations.values()):
        raise SIKDError(f"{file}: 'configurations' must hold keys and values by name; plan the data set anew")
    check_names(configurations, file, "configuration")
    identifiers = [each["data_identifier"] for each in configurations.values() if "data_identifier" in each]
    check_names(identifiers, file, "data_identifier")


def check_ending(dataset_json: Mapping[str, Any], file: Path) -> None:
    """Check a ``dataset.json``'s file ending, which becomes part of file names.

    Raises:
        SIKDError: It is none.
    """
    ending = dataset_json.get("file_ending")
    if not isinstance(ending, str) or not _ENDING.fullmatch(ending):
        raise SIKDError(f"{file}: file_ending {str(ending)[:80]!r} is none, such as '.nii.gz'; mend it")


def as_cell(text: str) -> str:
    """Text for a CSV file that a spreadsheet will not take for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_cell(cell: str) -> str:
    """The text that :func:`as_cell` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell

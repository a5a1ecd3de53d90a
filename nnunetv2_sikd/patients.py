"""Which cases are of one patient, by a regular expression for the cases' names."""

from __future__ import annotations

import re


def patient_pattern(pattern: str) -> str:
    """Check a pattern.

    Raises:
        ValueError: It is no regular expression, or finds nothing at all too.
    """
    try:
        empty = re.compile(pattern).search("") is not None
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression ({error})") from error
    if empty:
        raise ValueError(f"{pattern!r} also finds nothing at all, so that all cases could be one patient")
    return pattern


def patient_of(case: str, pattern: str | None) -> str | None:
    """The patient of a case: the pattern's first group, or all that it finds; None if it finds nothing.

    Args:
        case: Name of the case.
        pattern: Checked by :func:`patient_pattern`; None if each case is another patient.
    """
    if pattern is None:
        return case
    match = re.search(pattern, case)
    return (match and (match[1] if match.re.groups else match[0])) or None

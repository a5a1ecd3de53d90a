"""A folder of scores: what made them, and that nothing made otherwise comes beside them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.figures.drawing import save_table
from nnunetv2_sikd.files import file_hash, write_json
from nnunetv2_sikd.folders import cannot_write
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.stress.scores import Score

SCORES = "stress.csv"
_RECORD = "stress.json"


def case_hashes(case: str, images: Sequence[Path], label: Path) -> list[str]:
    """SHA-256 of a case's images and label, and of the spacing that lies beside a TIFF."""
    beside = [file.with_name(f"{case}.json") for file in (images[0], label)]
    return [file_hash(file) for file in (*images, label, *beside) if file.is_file()]


def plans_hash(planned: PlannedConfiguration) -> str:
    """SHA-256 of all that decides how images are preprocessed and predicted."""
    plans = [planned.configuration.configuration, planned.plans.foreground_intensity_properties_per_channel]
    return sha256(json.dumps(plans, sort_keys=True).encode()).hexdigest()


def settle(
    output: Path,
    about: Mapping[str, Any],
    weights: Mapping[str, str],
    plans: str,
    cases: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What a folder's scores were made with, after a check that these fit it.

    Args:
        output: The folder.
        about: Settings of all its scores.
        weights: SHA-256 of the weights by trainer.
        plans: SHA-256 of how images are preprocessed.
        cases: SHA-256 of each case's images and label; whoever scores one puts it into the record's ``cases_sha256``.

    Returns:
        The folder's record, with these trainers, for :func:`write_scores`.

    Raises:
        SIKDError: The folder holds scores of other settings, weights, plans, images or labels, or of nobody knows what.
    """
    file = output / _RECORD
    record: dict[str, Any] = {"settings": dict(about), "weights_sha256": {}}
    if file.is_file():
        try:
            record = dict(json.loads(file.read_text(encoding="utf-8")))
            changed = [key for key, value in about.items() if record["settings"].get(key) != value]
            changed += [f"weights of {n}" for n, h in weights.items() if record["weights_sha256"].get(n, h) != h]
            # An earlier version kept none of these.
            changed += ["plans"] if record.get("plans_sha256", plans) != plans else []
            known = record.get("cases_sha256", {})
            changed += [
                f"images or label of {case}" for case, hashes in cases.items() if known.get(case, hashes) != hashes
            ]
        except (ValueError, KeyError, AttributeError, TypeError):
            changed = ["file is damaged"]
        if changed:
            told = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise SIKDError(f"{file}: holds scores of others ({told}); name another folder with -o")
    elif (output / SCORES).is_file():
        raise SIKDError(f"{output / SCORES}: belongs to no {_RECORD}; name another folder with -o")
    record["weights_sha256"].update(weights)
    return {**record, "plans_sha256": plans, "cases_sha256": dict(record.get("cases_sha256", {}))}


def read_scores(output: Path) -> list[Score]:
    """The scores of a folder; none where there is no table.

    Raises:
        SIKDError: The table is damaged.
    """
    file = output / SCORES
    if not file.is_file():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return [Score.from_row(row) for row in csv.DictReader(stream)]
    except (KeyError, ValueError, TypeError) as error:
        raise SIKDError(f"{file}: is no table of scores ({error}); name another folder with -o") from error


def write_scores(output: Path, scores: Sequence[Score], record: Mapping[str, Any]) -> None:
    """Write scores and record, which goes first: scores are of no use without what made them.

    Raises:
        SIKDError: They cannot be written.
    """
    try:
        write_json(output / _RECORD, dict(record))
    except OSError as error:
        raise cannot_write(output, error) from error
    save_table([score.row() for score in scores], output / SCORES)

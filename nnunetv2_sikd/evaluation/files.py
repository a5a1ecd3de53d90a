"""What lies in the two folders: data set descriptions, pairs of files, the reader."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.image_files import ENDINGS, channel_names, check_file
from nnunetv2_sikd.json_files import read_json
from nnunetv2_sikd.untrusted import check_ending

_NAMES_TOLD = 8


@dataclass(frozen=True)
class PairedFiles:
    """Files of two folders, by name.

    Attributes:
        cases: Names of the cases that both have, sorted.
        missing: References without a prediction.
        extra: Predictions without a reference.
    """

    cases: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]


def load_dataset_json(named: Path | None, default: Sequence[Path], option: str) -> tuple[dict[str, Any], Path]:
    """Read a ``dataset.json``.

    Args:
        named: The file the user named.
        default: Where to look if there is none.
        option: With which the user names it.

    Returns:
        Its content, and which file it was.

    Raises:
        SIKDError: There is none, or it is none of nnU-Net's.
    """
    file = named or next((file for file in default if os.path.lexists(file)), None)
    if file is None:
        raise SIKDError(f"{default[0]}: not there; name the dataset.json with {option}")
    if not os.path.lexists(file):
        raise SIKDError(f"{file}: no such file ({option})")
    content = read_json(file, "mend it, or copy it again from the data set")
    check_dataset_json(content, file)
    return content, file


def check_dataset_json(content: Any, file: Path) -> None:
    """Check that a ``dataset.json`` has what nnU-Net reads from it, of the right types.

    Raises:
        SIKDError: It has not.
    """
    for key, kind in (("labels", dict), ("file_ending", str), ("channel_names", dict)):
        value = content.get(key) if isinstance(content, dict) else None
        if key == "channel_names" and value is None and isinstance(content, dict):
            value = content.get("modality")  # its old name, which nnU-Net still reads
        if not isinstance(value, kind):
            raise SIKDError(f"{file}: has no valid {key!r}; it must be a dataset.json of nnU-Net v2: mend it")
    check_ending(content, file)


def check_same_format(
    prediction_json: dict[str, Any], prediction_source: Path, reference_json: dict[str, Any], reference_source: Path
) -> None:
    """Check that a network of one data set can have predicted images of another.

    Raises:
        SIKDError: File ending or number of channels differ.
    """
    endings = prediction_json["file_ending"], reference_json["file_ending"]
    if endings[0] != endings[1]:
        raise SIKDError(
            f"{prediction_source} has file ending {endings[0]} and {reference_source} {endings[1]}: "
            "convert one of the data sets"
        )
    channels = len(channel_names(prediction_json)), len(channel_names(reference_json))
    if channels[0] != channels[1]:
        raise SIKDError(
            f"{prediction_source} has {channels[0]} channel(s) and {reference_source} {channels[1]}: "
            "a network of the one cannot have predicted the other's images"
        )


def pair_files(references: Path, predictions: Path, ending: str, *, chill: bool = False) -> PairedFiles:
    """Pair references and predictions by name.

    Args:
        references: Folder of ``<case><ending>``.
        predictions: Folder of the same names.
        ending: nnU-Net's file ending.
        chill: Accept references without a prediction.

    Raises:
        SIKDError: A folder is not there or holds no such files, none is in both, predictions are missing, or a
            case that only the other folder has lies here in another format.
    """
    if os.path.realpath(references) == os.path.realpath(predictions):
        raise SIKDError(f"{references}: is given both as references and as predictions")
    reference_cases, prediction_cases = (
        _cases(folder, ending, what) for folder, what in ((references, "references"), (predictions, "predictions"))
    )
    _refuse_other_formats(references, prediction_cases - reference_cases, ending)
    _refuse_other_formats(predictions, reference_cases - prediction_cases, ending)
    both = reference_cases & prediction_cases
    if not both:
        raise SIKDError(
            f"no case is both in {references} ({list_names(reference_cases, 3)}) and in {predictions} "
            f"({list_names(prediction_cases, 3)}): are they of the same data set?"
        )
    missing = reference_cases - prediction_cases
    if missing and not chill:
        raise SIKDError(
            f"{predictions}: has no prediction of {list_names(missing)} ({len(missing)} of {len(reference_cases)} "
            "cases); --chill evaluates the others"
        )
    return PairedFiles(*(tuple(sorted(cases)) for cases in (both, missing, prediction_cases - reference_cases)))


def choose_reader(reference_json: dict[str, Any], example: Path) -> Any:
    """nnU-Net's reader for a data set.

    Raises:
        SIKDError: None can read the example.
    """
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    check_file(example)
    # It prints a traceback of each reader it tries in vain.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return determine_reader_writer_from_dataset_json(reference_json, str(example), verbose=False)()
        except RuntimeError as error:
            raise SIKDError(f"{example}: none of nnU-Net's readers can read it; copy or convert it again") from error


def list_names(names: Collection[str], most: int = _NAMES_TOLD) -> str:
    """Names for a message of one line."""
    told = ", ".join(sorted(names)[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told


def _cases(folder: Path, ending: str, what: str) -> set[str]:
    if not folder.is_dir():
        raise SIKDError(f"{folder}: no such folder of {what}")
    files = [file.name for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith(".")]
    if not files:
        raise SIKDError(f"{folder}: holds no {what} named <case>{ending}; name another folder, or convert them")
    return {name.removesuffix(ending) for name in files}


def _refuse_other_formats(folder: Path, lacking: Collection[str], ending: str) -> None:
    """Refuse a lacking case that is there in another format; figures and the like beside the cases are no concern."""
    for case in sorted(lacking):
        for other in ENDINGS:
            file = folder / f"{case}{other}"
            if other != ending and os.path.isfile(file):  # false for a name too long, too
                raise SIKDError(
                    f"{file}: is of another format than the {ending} of dataset.json; convert it, or move it away"
                )

"""From a raw data set to preprocessed cases, with nnU-Net's own commands, as far as it has not been done."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import list_names
from nnunetv2_sikd.files import replace, write_text
from nnunetv2_sikd.json_files import read_json
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, dataset_id, find_dataset
from nnunetv2_sikd.preprocessing.stored import check_properties
from nnunetv2_sikd.processes import run
from nnunetv2_sikd.raw_cases import check_raw_data, training_cases
from nnunetv2_sikd.untrusted import check_names

SPLITS_FILE = "splits_final.json"
DEFAULT_FOLDS = 5
"""That nnU-Net makes where there is no split."""
_PARTS = ("train", "val")


def prepare(
    dataset: str | int,
    configuration: str = "2d",
    plans: str = "nnUNetPlans",
    *,
    base: str | None = None,
    changes: dict[str, Any] | None = None,
    num_processes: int = 2,
) -> None:
    """Plan a data set, take its split, add a derived configuration and preprocess; skip whatever is there.

    A ``splits_final.json`` beside the raw data goes to the preprocessed folder unless there is one already: a
    split by patient has to be in place before nnU-Net makes its own by case.

    Args:
        dataset: Data set name or id.
        configuration: Configuration to preprocess.
        plans: Plans identifier.
        base: Configuration that this one is derived from, if the plans lack it.
        changes: What it changes (see :func:`derive_configuration`).
        num_processes: Processes of nnU-Net's commands.

    Raises:
        SIKDError: No such data set, two splits that differ, a command failed, or the plans have another
            configuration of this name.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed")
    name = find_dataset(dataset)
    raw, preprocessed = (Path(os.environ[f"nnUNet_{kind}"]) / name for kind in ("raw", "preprocessed"))
    if not (raw / "dataset.json").is_file():
        raise SIKDError(f"{raw / 'dataset.json'}: not there; a raw data set is needed to prepare it")
    described = read_json(raw / "dataset.json", "mend it")
    if isinstance(described, dict) and isinstance(described.get("dataset"), dict):
        check_names(described["dataset"], raw / "dataset.json", "case")  # nnU-Net writes files of these names
    identifier = str(dataset_id(name))
    file, fingerprint = preprocessed / f"{plans}.json", preprocessed / "dataset_fingerprint.json"
    _put_aside_cut_off(fingerprint, *([file] if plans == "nnUNetPlans" else []))
    if (raw / SPLITS_FILE).is_file():
        _put_aside_cut_off(preprocessed / SPLITS_FILE)
    check_splits_agree(raw, preprocessed)
    if file.is_file():
        if base is None:
            PlannedConfiguration.load(name, configuration, plans)
        else:
            derive_configuration(file, configuration, base, **(changes or {}), write=False)
    elif plans != "nnUNetPlans":
        raise SIKDError(
            f"{file}: not there; only nnUNetPlans are made here, make these with nnUNetv2_plan_experiment "
            f"-d {identifier}"
        )
    if not _is_done(name, configuration, plans):
        check_raw_data(raw)
        _check_raw_split(raw)
    if file.is_file():
        print(f"{name}: already planned in {file}")
        if not fingerprint.is_file():  # every training copies it
            _run(["nnUNetv2_extract_fingerprint", "-d", identifier, "-np", str(num_processes)], name)
    else:
        _run(["nnUNetv2_plan_and_preprocess", "-d", identifier, "--no_pp", "-npfp", str(num_processes)], name)
    _take_split(raw, preprocessed)
    if base is not None:
        derive_configuration(file, configuration, base, **(changes or {}))
    planned = PlannedConfiguration.load(name, configuration, plans)
    if is_preprocessed(planned):
        print(f"{name}: {configuration} already preprocessed")
        return
    for case, (_, label) in training_cases(raw, planned.dataset_json).items():
        reference = preprocessed / "gt_segmentations" / f"{case}{planned.dataset_json['file_ending']}"
        if reference.is_file() and not _is_copied(label, reference):
            reference.unlink()  # nnU-Net would take the half that a kill left for up to date
    command = ["nnUNetv2_preprocess", "-d", identifier, "-plans_name", plans, "-c", configuration]
    _run([*command, "-np", str(num_processes)], name)
    if not is_preprocessed(planned):
        raise SIKDError(f"{preprocessed}: nnUNetv2_preprocess ended, and cases are missing; see its messages above")


def _is_done(name: str, configuration: str, plans: str) -> bool:
    try:
        return is_preprocessed(PlannedConfiguration.load(name, configuration, plans))
    except SIKDError:  # a configuration that is still to be derived
        return False


def _check_raw_split(raw: Path) -> None:
    """Refuse a split beside the raw data that names other cases before hours of preprocessing."""
    file = raw / SPLITS_FILE
    if os.path.lexists(file):
        cases = training_cases(raw, read_json(raw / "dataset.json", "mend it"))
        for fold in range(len(read_splits(file))):
            check_fold(file, fold, list(cases), raw.name)


def is_preprocessed(planned: PlannedConfiguration) -> bool:
    """Whether every training case of the raw data set is there, complete, with its reference for the validation."""
    name = planned.plans.dataset_name
    cases = training_cases(Path(os.environ["nnUNet_raw"]) / name, planned.dataset_json)
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / name
    folder, ending = preprocessed / planned.configuration.data_identifier, planned.dataset_json["file_ending"]
    # nnU-Net writes a case's properties last, and the references after all cases.
    return all(
        _is_whole_pickle(folder / f"{case}.pkl")
        and _is_copied(label, preprocessed / "gt_segmentations" / f"{case}{ending}")
        for case, (_, label) in cases.items()
    )


def _is_whole_pickle(file: Path) -> bool:
    try:
        check_properties(file)
    except (ValueError, OSError):
        return False
    return True


def _is_copied(source: Path, target: Path) -> bool:
    return target.is_file() and (not source.is_file() or target.stat().st_size >= source.stat().st_size)


def _put_aside_cut_off(*files: Path) -> None:
    """Rename JSON files whose end is missing: nnU-Net writes in place, and reads what a kill has left of them."""
    for file in files:
        if file.is_file() and not file.read_bytes().rstrip().endswith((b"}", b"]")):
            aside = file.with_name(f"{file.name}.cut_off")  # and not removed: somebody may have edited it
            print(f"{file}: is cut off, so it is made anew; what was there is in {aside.name}")
            replace(file, aside)


def check_splits_agree(raw: Path, preprocessed: Path) -> None:
    """Check that a split beside the raw data is the one that nnU-Net will use.

    Args:
        raw: A data set's folder in ``nnUNet_raw``.
        preprocessed: Its folder in ``nnUNet_preprocessed``.

    Raises:
        SIKDError: The preprocessed folder has another split.
    """
    wanted, used = raw / SPLITS_FILE, preprocessed / SPLITS_FILE
    if wanted.is_file() and used.is_file() and read_splits(wanted) != read_splits(used):
        raise SIKDError(f"{used}: differs from {wanted}, and nnU-Net trains by the former; delete the one not meant")


def read_splits(file: Path) -> list[dict[str, list[str]]]:
    """Folds of a ``splits_final.json``.

    Raises:
        SIKDError: It is damaged.
    """
    splits = read_json(file, "mend or delete it")
    if (
        not isinstance(splits, list)
        or not splits
        or not all(
            isinstance(fold, dict)
            and {"train", "val"} <= set(fold)
            and all(
                isinstance(fold[part], list) and all(isinstance(case, str) for case in fold[part]) for part in _PARTS
            )
            for fold in splits
        )
    ):
        raise SIKDError(
            f'{file}: must be a list of folds, each with lists of cases "train" and "val"; mend or delete it'
        )
    check_names([case for fold in splits for part in _PARTS for case in fold[part]], file, "case")
    return splits


def check_fold(file: Path | None, fold: int | str, cases: Collection[str], where: str, *, strict: bool = False) -> None:
    """Check a fold of nnU-Net's split.

    Args:
        file: ``splits_final.json``; None if there is none, so that nnU-Net makes five folds.
        fold: Number of the fold, or ``all``, which needs no split.
        cases: The training cases there are.
        where: Where they are, for messages.
        strict: Also refuse what nnU-Net only warns about: cases both in training and in validation.

    Raises:
        SIKDError: There is no such fold, for which nnU-Net would draw a random split; it names cases that are not
            there, or none to validate.
    """
    if fold == "all":
        return
    splits = None if file is None else read_splits(file)
    count = DEFAULT_FOLDS if splits is None else len(splits)
    if int(fold) >= count:
        known = f"folds 0 to {count - 1}" if count else "none"
        raise SIKDError(f"fold {fold} is not in {file or 'nnU-Net’s split'}, which has {known}: choose another one")
    if splits is None:
        return
    train, val = (splits[int(fold)][part] for part in _PARTS)
    unknown = {*train, *val} - set(cases)
    if unknown:
        raise SIKDError(f"{file}: fold {fold} names {list_names(unknown)}, no training cases of {where}; mend it")
    if strict and set(train) & set(val):
        raise SIKDError(
            f"{file}: fold {fold} has {list_names(set(train) & set(val))} both in training and in validation; mend it"
        )
    if not val:
        raise SIKDError(f'{file}: fold {fold} names no case in "val"; mend it')


def _take_split(raw: Path, preprocessed: Path) -> None:
    if (raw / SPLITS_FILE).is_file() and not (preprocessed / SPLITS_FILE).exists():
        write_text(preprocessed / SPLITS_FILE, (raw / SPLITS_FILE).read_text(encoding="utf-8"))
        print(f"{raw.name}: took the split that lies beside the raw data")


def _run(command: list[str], name: str) -> None:
    environment = dict(os.environ)
    if environment.get("nnUNet_n_proc_DA") == "0":  # sensible for a training; nnU-Net's planning crashes
        del environment["nnUNet_n_proc_DA"]
    status = run(command, environment)
    if status != 0:
        raise SIKDError(f"{name}: {command[0]} failed (exit status {status}, see above); mend that and run it again")

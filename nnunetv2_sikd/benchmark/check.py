"""What can be wrong with a benchmark is found before hours of training; reads no image."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import TestSet
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import check_same_format, list_names
from nnunetv2_sikd.evaluation.labels import LabelTable, match_labels
from nnunetv2_sikd.image_files import find_cases
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.prepare import DEFAULT_FOLDS, SPLITS_FILE, check_fold, check_splits_agree, read_splits
from nnunetv2_sikd.raw_cases import training_cases
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.lookup import find_trainer
from nnunetv2_sikd.training import check_split, with_teacher

_PLANNED_BY_DEFAULT = ("2d", "3d_fullres", "3d_lowres")


def check_benchmark(layout: Layout) -> None:
    """Check data sets, folders, file endings, channels, labels, patients, trainers, configuration, folds and splits.

    Args:
        layout: Specification and folders.

    Raises:
        SIKDError: Something is wrong: what, where, and what to do.
    """
    specification = layout.specification
    with _in(layout, "source"):
        training_cases = _check_source(layout)
        _check_configuration(layout)
        _check_folds(layout, training_cases)
    for trainer in dict.fromkeys(training.trainer for training in specification.trainings()):
        with _in(layout, "arms"):
            _check_trainer(trainer)
    with _in(layout, "arms"):
        _check_trained(layout)
    for test in specification.tests:
        with _in(layout, f"test set {test.key}"):
            _check_test(layout, test, training_cases)


@contextlib.contextmanager
def _in(layout: Layout, part: str) -> Iterator[None]:
    """Say in which part of which benchmark file an error is."""
    try:
        yield
    except SIKDError as error:
        raise SIKDError(f"{layout.file}, {part}: {error}") from error


def _check_source(layout: Layout) -> set[str]:
    """Check the raw training data; returns the names of its cases."""
    dataset = layout.specification.source.dataset
    raw, dataset_json = layout.raw(dataset), layout.dataset_json(dataset)
    _check_dataset_json(dataset_json, raw / "dataset.json")
    cases = training_cases(raw, dataset_json)
    for case, (images, label) in cases.items():
        for file in (label, *images):
            if not file.is_file():
                raise SIKDError(f"{file}: not there, and {raw.name} has the training case {case}; add or remove it")
    return set(cases)


def _check_dataset_json(dataset_json: dict[str, Any], file: Path) -> None:
    for key, kind in (("labels", dict), ("file_ending", str)):
        if not isinstance(dataset_json.get(key), kind):
            raise SIKDError(f"{file}: has no valid {key!r}; nnU-Net needs it")
    if not any(isinstance(dataset_json.get(key), dict) for key in ("channel_names", "modality")):
        raise SIKDError(f"{file}: has no valid 'channel_names'; nnU-Net needs it")


def _check_configuration(layout: Layout) -> None:
    source = layout.specification.source
    plans = layout.preprocessed() / f"{source.plans}.json"
    if plans.is_file():
        planned_name = source.configuration
        if source.derive is not None:
            changes = source.derive.model_dump(exclude={"base"}, exclude_none=True)
            derive_configuration(plans, source.configuration, source.derive.base, **changes, write=False)
            planned_name = source.derive.base  # whose stages the derived one inherits; that may not be there yet
        planned = PlannedConfiguration.load(layout.source, planned_name, source.plans)
        if planned.configuration.previous_stage_name is not None:
            raise SIKDError(f"configuration {source.configuration!r} is a cascade, which SIKD does not train")
        return
    if source.plans != "nnUNetPlans":
        raise SIKDError(f"{plans}: not there; make these plans with nnUNetv2_plan_experiment, or use nnUNetPlans")
    wanted = source.derive.base if source.derive else source.configuration
    if wanted not in _PLANNED_BY_DEFAULT:
        raise SIKDError(
            f"configuration {wanted!r} is none that nnU-Net plans; name one of {', '.join(_PLANNED_BY_DEFAULT)}, or "
            "say with 'derive' how it is made from one"
        )


def _check_folds(layout: Layout, training_cases: Collection[str]) -> None:
    raw, preprocessed = layout.raw(layout.specification.source.dataset), layout.preprocessed()
    check_splits_agree(raw, preprocessed)
    file = next((folder / SPLITS_FILE for folder in (preprocessed, raw) if (folder / SPLITS_FILE).is_file()), None)
    splits = None if file is None else read_splits(file)
    if splits is None and len(training_cases) < DEFAULT_FOLDS:
        raise SIKDError(
            f"{raw}: has {len(training_cases)} training cases, too few for nnU-Net's {DEFAULT_FOLDS} folds; put a "
            f"{SPLITS_FILE} there"
        )
    for fold in layout.specification.folds:
        check_fold(file, fold, training_cases, raw.name, strict=True)


@functools.cache
def _check_trainer(name: str) -> None:
    ours = getattr(variants, name, None)
    if isinstance(ours, type) and issubclass(ours, nnUNetTrainer):
        return
    try:
        find_trainer(name, "trainer")
    except SIKDError as error:
        if isinstance(error.__cause__, (ImportError, SyntaxError, NameError)):
            raise
        raise SIKDError(
            f"there is no trainer {name}; nnUNetv2_sikd doctor lists this package's, and only those and nnUNetTrainer "
            "and nnUNetTrainerDA5 take 'seeds' and 'schedule'"
        ) from error


def _check_trained(layout: Layout) -> None:
    """Refuse trainings that are there, and would count as done, of another split."""
    splits = layout.preprocessed() / SPLITS_FILE
    ending = layout.dataset_json(layout.specification.source.dataset)["file_ending"]
    for training in layout.specification.trainings():
        for trainer in with_teacher(training.trainer):
            check_split(layout.fold(trainer, training.fold), training.fold, splits, ending)


def _check_test(layout: Layout, test: TestSet, training_cases: Collection[str]) -> None:
    source_raw, raw = layout.raw(layout.specification.source.dataset), layout.raw(test.dataset)
    source_json, dataset_json = source_raw / "dataset.json", raw / "dataset.json"
    source, own = layout.dataset_json(layout.specification.source.dataset), layout.dataset_json(test.dataset)
    _check_dataset_json(own, dataset_json)
    check_same_format(source, source_json, own, dataset_json)
    cases = find_cases(layout.images(test), source, source_raw.name)
    if layout.specification.is_source(test):
        seen = set(cases) & set(training_cases)
        if seen:
            raise SIKDError(f"{layout.images(test)}: {list_names(seen)} are training cases of {raw.name}; remove them")
    _check_references(layout.images(test), cases, layout.references(test), source["file_ending"])
    match_labels(
        LabelTable.from_dataset_json(source, source_json), LabelTable.from_dataset_json(own, dataset_json), test.labels
    )
    patients = {test.patient_of(case) for case in cases}
    if layout.specification.is_source(test) and test.patient is not None:
        trained = {test.patient_of(case) for case in training_cases if re.search(test.patient, case)}
        if patients & trained:
            raise SIKDError(
                f"{layout.images(test)}: has cases of {list_names(patients & trained)}, who are among the training "
                f"patients of {raw.name}; remove them"
            )


def _check_references(images: Path, cases: Collection[str], references: Path, ending: str) -> None:
    if not references.is_dir():
        raise SIKDError(f"{references}: no such folder of references; evaluation needs one label file per case")
    annotated = {file.name.removesuffix(ending) for file in references.iterdir() if file.name.endswith(ending)}
    annotated = {case for case in annotated if not case.startswith(".")}
    if set(cases) - annotated:
        raise SIKDError(
            f"{references}: has no {list_names(set(cases) - annotated)} of {images.name}; add or remove them"
        )
    if annotated - set(cases):
        raise SIKDError(
            f"{images}: has no {list_names(annotated - set(cases))} of {references.name}; add or remove them"
        )

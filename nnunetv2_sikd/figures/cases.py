"""Which cases and which slice a figure shows, and their preprocessed arrays."""

from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.prepare import check_fold, read_splits
from nnunetv2_sikd.preprocessing.stored import open_array


def validation_cases(planned: PlannedConfiguration, fold: int | str) -> list[str]:
    """The fold's validation cases in alphabetical order; for ``all`` every case.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold, or ``all``.

    Raises:
        SIKDError: The data set has no splits yet, or a case of them is not preprocessed.
    """
    folder = planned.cases_folder()
    base = Path(str(nnUNet_preprocessed)) / planned.plans.dataset_name
    splits = base / "splits_final.json"
    if fold != "all" and not os.path.lexists(splits):
        raise SIKDError(f"{splits}: not there, so fold {fold} has no cases; nnU-Net writes it when a training starts")
    # For a fold beyond the file's nnU-Net draws a random split.
    if fold != "all" and int(fold) < len(read_splits(splits)):
        cases = nnUNetDatasetBlosc2.get_identifiers(str(folder))
        check_fold(splits, fold, cases, planned.plans.dataset_name)
    # nnU-Net's own rule; a trainer object would make folders and a log.
    trainer = SimpleNamespace(
        fold=fold,
        dataset_class=nnUNetDatasetBlosc2,
        preprocessed_dataset_folder=str(folder),
        preprocessed_dataset_folder_base=str(base),
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=print,
    )
    try:
        with redirect_stdout(StringIO()):
            _, cases = nnUNetTrainer.do_split(trainer)
        cases = sorted(cases)
    except (ValueError, KeyError, TypeError) as error:
        raise SIKDError(f"{splits}: no splits of nnU-Net's ({type(error).__name__}: {error}); mend the file") from error
    missing = sorted(set(cases) - set(nnUNetDatasetBlosc2.get_identifiers(str(folder))))
    if missing or not cases:
        what = f"validation case {missing[0]} is not preprocessed" if missing else "the fold has no validation case"
        raise SIKDError(f"{folder}: {what} (fold {fold} of {splits}); mend the splits or preprocess again")
    return cases


def read_case(planned: PlannedConfiguration, case: str) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Preprocessed image and label of a case.

    Shape:
        - image: ``(C, Z, Y, X)``, normalised as the configuration says
        - label: ``(Z, Y, X)``, -1 outside the non-zero mask

    Raises:
        SIKDError: There is no such case, or it cannot be read.
    """
    folder = planned.cases_folder()
    if case not in nnUNetDatasetBlosc2.get_identifiers(str(folder)):
        raise SIKDError(f"{folder}: has no case {case!r}; choose another with --case")
    try:
        # Not with nnU-Net's load_case, which also loads the case's pickle.
        image, label = (open_array(folder / f"{case}{suffix}") for suffix in (".b2nd", "_seg.b2nd"))
        return np.asarray(image[:], np.float32), np.asarray(label[0], np.int16)
    except Exception as error:
        told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SIKDError(
            f"{folder / case}.b2nd: cannot be read ({told}); run nnUNetv2_preprocess again for this data set"
        ) from error


def choose_slice(label: NDArray[np.int16], ignore_label: int | None) -> int:
    """The slice with the most foreground classes; among those the one with the most foreground; then the first.

    Depends on the reference alone, so no result can decide which slice is shown.

    Shape:
        - label: ``(Z, Y, X)``
    """
    keys = []
    for each in label:
        foreground = each[(each > 0) & (each != ignore_label)]
        keys.append((len(np.unique(foreground)), foreground.size))
    return max(range(len(keys)), key=keys.__getitem__)


def class_names(planned: PlannedConfiguration) -> dict[int, str]:
    """Name of each class: the disjoint label values, background first, the ignore label left out.

    In region-based data sets a label value is named by the regions that hold it.
    """
    names: dict[int, list[str]] = {}
    for name, values in planned.dataset_json["labels"].items():
        for value in values if isinstance(values, list | tuple) else [values]:
            if int(value) != planned.label_manager.ignore_label:
                names.setdefault(int(value), []).append(name)
    return {value: ", ".join(names[value]) for value in sorted(names)}


def averaged_apart(planned: PlannedConfiguration) -> str:
    """What is averaged at a time: ``slice`` in 2D configurations, ``volume`` in 3D ones."""
    return "slice" if len(planned.configuration.patch_size) == 2 else "volume"

"""A planned and preprocessed configuration of a data set, found by nnU-Net's names."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError


@dataclass(frozen=True)
class PlannedConfiguration:
    """Plans, data set description and folders of one configuration.

    Attributes:
        plans: nnU-Net's plans.
        name: Configuration name (``2d``).
        dataset_json: Content of ``dataset.json``.
    """

    plans: PlansManager
    name: str
    dataset_json: dict[str, Any]

    @classmethod
    def load(cls, dataset: str | int, configuration: str, plans: str) -> PlannedConfiguration:
        """Read plans and ``dataset.json`` from ``nnUNet_preprocessed``.

        Args:
            dataset: Data set name or id.
            configuration: Configuration name.
            plans: Plans identifier.

        Raises:
            SIKDError: A folder variable is not set, or the data set, plans or configuration do not exist.
        """
        require_folders("nnUNet_preprocessed")
        dataset_name = find_dataset(dataset)
        folder = Path(str(nnUNet_preprocessed)) / dataset_name
        plan = f"run nnUNetv2_plan_and_preprocess -d {dataset}"
        plans_manager = PlansManager(
            _load_json(folder / f"{plans}.json", plan, "configurations", "dataset_name", "plans_name")
        )
        dataset_json = _load_json(folder / "dataset.json", plan, "labels")
        available = list(plans_manager.available_configurations)
        if configuration not in plans_manager.plans["configurations"]:
            raise SIKDError(
                f"{folder / f'{plans}.json'}: has no configuration {configuration!r}; choose one of "
                f"{', '.join(available)} with -c"
            )
        return cls(plans_manager, configuration, dataset_json)

    @property
    def configuration(self) -> Any:
        """nnU-Net's ``ConfigurationManager``."""
        return self.plans.get_configuration(self.name)

    @property
    def label_manager(self) -> Any:
        """nnU-Net's ``LabelManager``."""
        return self.plans.get_label_manager(self.dataset_json)

    def cases_folder(self) -> Path:
        """Folder of the preprocessed cases.

        Raises:
            SIKDError: It is missing or empty, or another nnU-Net version wrote it.
        """
        base = Path(str(nnUNet_preprocessed)) / self.plans.dataset_name
        folder = base / self.configuration.data_identifier
        remedy = (
            f"run nnUNetv2_preprocess -d {dataset_id(self.plans.dataset_name)} -plans_name {self.plans.plans_name} "
            f"-c {self.name}"
        )
        if not folder.is_dir():
            raise SIKDError(f"{folder}: not there, configuration {self.name!r} is not preprocessed; {remedy}")
        if not nnUNetDatasetBlosc2.get_identifiers(str(folder)):
            if any(file.endswith(".npz") for file in os.listdir(folder)):
                raise SIKDError(f"{folder}: preprocessed by another nnU-Net version (.npz files); {remedy}")
            raise SIKDError(f"{folder}: has no preprocessed cases; {remedy}")
        return folder


def dataset_id(name: str) -> int:
    """Number of a data set, from its full name (``Dataset101_ACDC``)."""
    return int(name[len("Dataset") :].split("_")[0])


def find_dataset(dataset: str | int) -> str:
    """Full name of a data set given by name or id.

    Raises:
        SIKDError: There is none.
    """
    try:
        name = maybe_convert_to_dataset_name(int(dataset) if str(dataset).isdigit() else dataset)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise SIKDError(
            f"data set {dataset} is in none of nnUNet_raw, nnUNet_preprocessed and nnUNet_results, or more than "
            "one has this id: check -d and the folders (nnUNetv2_sikd doctor)"
        ) from error
    return str(name)


def _load_json(file: Path, remedy: str, *needed: str) -> dict[str, Any]:
    if not file.is_file():
        raise SIKDError(f"{file}: not there, the data set is not planned; {remedy}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SIKDError(f"{file}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise SIKDError(f"{file}: must hold a JSON object; {remedy}")
    missing = [key for key in needed if key not in content]
    if missing:
        raise SIKDError(f"{file}: has no {', '.join(missing)}; {remedy}")
    return content

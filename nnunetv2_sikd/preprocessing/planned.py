"""A planned and preprocessed configuration of a data set, found by nnU-Net's names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import check_dataset_json
from nnunetv2_sikd.evaluation.labels import check_labels
from nnunetv2_sikd.image_files import channel_names
from nnunetv2_sikd.json_files import read_json
from nnunetv2_sikd.preprocessing.plans import check_configuration, resolved
from nnunetv2_sikd.untrusted import check_names, check_part, check_plans

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


@dataclass(frozen=True)
class PlannedConfiguration:
    """Plans, data set description and folders of one configuration.

    Attributes:
        plans_json: Content of nnU-Net's plans.
        name: Configuration name (``2d``).
        dataset_json: Content of ``dataset.json``.
    """

    plans_json: dict[str, Any]
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
            SIKDError: A folder variable is not set, the data set, plans or configuration do not exist, or are not as
                nnU-Net writes them.
        """
        require_folders("nnUNet_preprocessed")
        dataset_name = find_dataset(dataset)
        check_names([plans], Path("-p"), "plans")
        folder = Path(str(nnUNet_preprocessed)) / dataset_name
        plan = f"run nnUNetv2_plan_and_preprocess -d {dataset}"
        file = folder / f"{plans}.json"
        content = _load_json(file, plan, "configurations", "dataset_name", "plans_name")
        check_configuration(content, configuration, file, dataset_name)
        check_plans(content, file)
        dataset_json = _load_json(folder / "dataset.json", plan, "labels", "file_ending")
        _check_dataset_json(dataset_json, content["configurations"], configuration, folder / "dataset.json")
        return cls(content, configuration, dataset_json)

    @property
    def dataset_name(self) -> str:
        """Full name of the data set."""
        return str(self.plans_json["dataset_name"])

    @property
    def dataset_json_file(self) -> Path:
        """Where ``dataset_json`` was read."""
        return Path(str(nnUNet_preprocessed)) / self.dataset_name / "dataset.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What the plans say of the configuration, with what it inherits."""
        file = self.dataset_json_file.with_name(f"{self.plans_json['plans_name']}.json")
        return resolved(self.plans_json["configurations"], self.name, file)

    @cached_property
    def plans(self) -> PlansManager:
        """nnU-Net's ``PlansManager``; its import brings torch and takes seconds."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        return PlansManager(self.plans_json)

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
            SIKDError: It is missing or empty, another nnU-Net version wrote it, or the plans name one elsewhere.
        """
        # Also here, since nnU-Net's trainers read plans themselves.
        check_plans(self.plans_json, Path(f"{self.plans_json.get('plans_name')}.json"))
        folder = self.dataset_json_file.with_name(self.settings["data_identifier"])
        remedy = (
            f"run nnUNetv2_preprocess -d {dataset_id(self.dataset_name)} -plans_name {self.plans_json['plans_name']} "
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
    """Number of a data set, from its full name (``Dataset101_ACDC``).

    Raises:
        SIKDError: It is none.
    """
    match = re.match(r"Dataset([0-9]{3,9})(?:_|$)", name)
    if match is None:
        raise SIKDError(f"{name[:80]!r} is no data set's name, such as Dataset101_ACDC")
    return int(match[1])


def find_dataset(dataset: str | int) -> str:
    """Full name of a data set given by name or id.

    Raises:
        SIKDError: There is none.
    """
    try:
        name = check_part(str(maybe_convert_to_dataset_name(int(dataset) if str(dataset).isdigit() else dataset)))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise SIKDError(
            f"data set {dataset} is in none of nnUNet_raw, nnUNet_preprocessed and nnUNet_results, or more than "
            "one has this id: check -d and the folders (nnUNetv2_sikd doctor)"
        ) from error
    return name


def _load_json(file: Path, remedy: str, *needed: str) -> dict[str, Any]:
    if not file.is_file():
        raise SIKDError(f"{file}: not there, the data set is not planned; {remedy}")
    content = read_json(file, remedy)
    if not isinstance(content, dict):
        raise SIKDError(f"{file}: must hold a JSON object; {remedy}")
    missing = [key for key in needed if key not in content]
    if missing:
        raise SIKDError(f"{file}: has no {', '.join(missing)}; {remedy}")
    return content


def _check_dataset_json(
    dataset_json: dict[str, Any], configurations: dict[str, Any], configuration: str, file: Path
) -> None:
    check_dataset_json(dataset_json, file)
    check_labels(dataset_json, file)
    channels = len(channel_names(dataset_json))
    schemes = resolved(configurations, configuration, file).get("normalization_schemes")
    if isinstance(schemes, list) and len(schemes) != channels:
        raise SIKDError(
            f"{file}: has {channels} channel(s), and the plans were made for {len(schemes)}; restore it, or plan and "
            "preprocess the data set anew"
        )

"""From a raw data set to preprocessed cases, with nnU-Net's own commands, as far as it has not been done."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import write_json
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, dataset_id, find_dataset
from nnunetv2_sikd.processes import run


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
        SIKDError: No such data set, a command failed, or the plans have another configuration of this name.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed")
    name = find_dataset(dataset)
    identifier = str(dataset_id(name))
    raw, preprocessed = (Path(os.environ[f"nnUNet_{kind}"]) / name for kind in ("raw", "preprocessed"))
    file = preprocessed / f"{plans}.json"
    if file.is_file():
        print(f"{name}: already planned in {file}")
    elif plans != "nnUNetPlans":
        raise SIKDError(f"{file}: not there; make these plans with nnUNetv2_plan_experiment -d {dataset}")
    else:
        _require(run(["nnUNetv2_plan_and_preprocess", "-d", identifier, "--no_pp", "-npfp", str(num_processes)]), name)
    if (raw / "splits_final.json").is_file() and not (preprocessed / "splits_final.json").exists():
        shutil.copyfile(raw / "splits_final.json", preprocessed / "splits_final.json")
        print(f"{name}: took the split that lies beside the raw data")
    if base is not None:
        derive_configuration(file, configuration, base, **(changes or {}))
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    if is_preprocessed(planned):
        print(f"{name}: {configuration} already preprocessed")
        return
    command = [
        "nnUNetv2_preprocess",
        "-d",
        identifier,
        "-plans_name",
        plans,
        "-c",
        configuration,
        "-np",
        str(num_processes),
    ]
    _require(run(command), name)
    if not is_preprocessed(planned):
        raise SIKDError(f"{preprocessed}: nnUNetv2_preprocess ended, and cases are missing; see its messages above")


def is_preprocessed(planned: PlannedConfiguration) -> bool:
    """Whether every training case of the raw data set is there, complete."""
    raw = Path(os.environ["nnUNet_raw"]) / planned.plans.dataset_name
    cases = get_filenames_of_train_images_and_targets(str(raw), planned.dataset_json)
    folder = (
        Path(os.environ["nnUNet_preprocessed"]) / planned.plans.dataset_name / planned.configuration.data_identifier
    )
    # nnU-Net writes a case's properties last.
    return all((folder / f"{case}.pkl").is_file() for case in cases)


def derive_configuration(
    file: Path,
    name: str,
    base: str,
    *,
    spacing: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    features_per_stage: Sequence[int] | None = None,
) -> None:
    """Add a configuration to plans: another one with other values; what it has already stays.

    Args:
        file: Plans.
        name: Its name.
        base: Configuration whose other values it takes.
        spacing: Voxel spacing in mm; another one needs preprocessed cases of its own.
        patch_size: In voxels.
        batch_size: Images per batch.
        features_per_stage: Features of each stage; fewer stages make a shallower network.

    Raises:
        SIKDError: The plans have no such base or another configuration of this name, or values do not fit.
    """
    plans = json.loads(file.read_text(encoding="utf-8"))
    configurations = plans["configurations"]
    if base not in configurations:
        raise SIKDError(
            f"{file}: has no configuration {base!r} to derive {name!r} from; it has {', '.join(configurations)}"
        )
    derived: dict[str, Any] = {"inherits_from": base}
    if spacing is not None:
        derived.update(data_identifier=f"{plans['plans_name']}_{name}", spacing=[float(value) for value in spacing])
    if patch_size is not None:
        derived["patch_size"] = list(patch_size)
    if batch_size is not None:
        derived["batch_size"] = batch_size
    if features_per_stage is not None:
        derived["architecture"] = _with_features(configurations[base], list(features_per_stage), file)
    _check_patch({**configurations[base], **derived}, file, name)
    present = configurations.get(name)
    if present is not None:
        if any(present.get(key) != value for key, value in derived.items()):
            raise SIKDError(
                f"{file}: has another configuration named {name!r}; choose another name, or delete it there"
            )
        return
    configurations[name] = derived
    write_json(file, plans)
    print(f"{file}: configuration {name} added")


def _with_features(configuration: dict[str, Any], features: list[int], file: Path) -> dict[str, Any]:
    architecture = copy.deepcopy(configuration.get("architecture"))
    arguments = (architecture or {}).get("arch_kwargs", {})
    if architecture is None or len(features) > arguments.get("n_stages", 0):
        raise SIKDError(
            f"{file}: its network has {arguments.get('n_stages', 'unknown')} stages and features_per_stage names "
            f"{len(features)}: name as many or fewer"
        )
    stages = len(features)
    arguments.update(n_stages=stages, features_per_stage=features)
    for key, value in arguments.items():
        if key in ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
            arguments[key] = value[:stages]
        elif key == "n_conv_per_stage_decoder":
            arguments[key] = value[: stages - 1]
    return dict(architecture)


def _check_patch(configuration: dict[str, Any], file: Path, name: str) -> None:
    architecture, patch = configuration.get("architecture"), configuration.get("patch_size")
    if architecture is None or patch is None:
        return  # inherited twice: nnU-Net resolves it
    strides = architecture["arch_kwargs"]["strides"]
    for axis, size in enumerate(patch):
        factor = 1
        for stride in strides:
            factor *= stride[axis] if isinstance(stride, list) else stride
        if size % factor:
            raise SIKDError(f"{file}: {name}'s patch size {patch} must be divisible by {factor} along axis {axis}")


def _require(status: int, name: str) -> None:
    if status != 0:
        raise SIKDError(f"{name}: nnU-Net's command failed (exit status {status}); its messages above say why")

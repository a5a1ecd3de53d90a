"""Configurations derived from planned ones: another resolution, patch, batch or network size."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import check_name, write_json
from nnunetv2_sikd.preprocessing.plans import for_each_stage, resolved
from nnunetv2_sikd.untrusted import check_plans

_PER_STAGE = ("kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


def derive_configuration(
    file: Path,
    name: str,
    base: str,
    *,
    spacing: Sequence[float] | None = None,
    patch_size: Sequence[int] | None = None,
    batch_size: int | None = None,
    features_per_stage: Sequence[int] | None = None,
    write: bool = True,
) -> None:
    """Add a configuration to plans: another one with other values; what it has already stays.

    Args:
        file: Plans.
        name: Its name.
        base: Configuration whose other values it takes.
        spacing: Voxel spacing in mm, in the plans' order of axes; another one needs preprocessed cases of its own.
        patch_size: In voxels.
        batch_size: Images per batch.
        features_per_stage: Features of each stage; fewer stages make a shallower network.
        write: Whether to change the file, or only to check that it could be.

    Raises:
        SIKDError: The plans have no such base or another configuration of this name, or values do not fit.
    """
    try:
        plans = json.loads(file.read_text(encoding="utf-8"))
        configurations = plans["configurations"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SIKDError(f"{file}: are no plans of nnU-Net ({error}); plan the data set anew") from error
    check_plans(plans, file)
    if base not in configurations:
        raise SIKDError(
            f"{file}: has no configuration {base!r} to derive {name!r} from; it has {', '.join(configurations)}"
        )
    _check_name(name, configurations, file)
    derived: dict[str, Any] = {"inherits_from": base}
    if spacing is not None:
        derived.update(data_identifier=f"{plans['plans_name']}_{name}", spacing=[float(value) for value in spacing])
    if patch_size is not None:
        derived["patch_size"] = list(patch_size)
    if batch_size is not None:
        derived["batch_size"] = batch_size
    try:
        whole = resolved(configurations, base, file)
        if whole.get("next_stage") is not None:  # of a cascade, which was planned for the base
            derived["next_stage"] = None
        if features_per_stage is not None:
            derived["architecture"] = _with_features(whole, list(features_per_stage), file)
        _check_sizes(whole, derived, file, name)
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        told = f"{type(error).__name__}: {error}"
        raise SIKDError(f"{file}: configuration {base!r} is not as nnU-Net plans it ({told}); plan anew") from error
    if name in configurations:
        if configurations[name] != derived:
            raise SIKDError(
                f"{file}: has another configuration named {name!r}; choose another name, or delete it there together "
                "with its preprocessed cases"
            )
    elif write:
        configurations[name] = derived
        write_json(file, plans)
        print(f"{file}: configuration {name} added")


def _check_name(name: str, configurations: Collection[str], file: Path) -> None:
    """It becomes part of folder names; not every system tells ``Small`` from ``small``."""
    try:
        check_name(name)
    except ValueError as error:
        raise SIKDError(f"{file}: cannot have a configuration named {error}") from error
    same = [other for other in configurations if other != name and other.lower() == name.lower()]
    if same:
        raise SIKDError(f"{file}: has a configuration {same[0]!r}, which {name!r} equals but for capitals; rename one")


def _with_features(configuration: dict[str, Any], features: list[int], file: Path) -> dict[str, Any]:
    architecture = copy.deepcopy(configuration.get("architecture", {}))
    arguments = architecture.get("arch_kwargs", {})
    most = arguments.get("n_stages", 0)
    # Of two stages one has an output, which nnU-Net's deep supervision gives no weight: its loss would be NaN.
    if not 3 <= len(features) <= most:
        raise SIKDError(
            f"{file}: its network has {most or 'no'} stages and features_per_stage names {len(features)}: "
            f"name 3 to {most}"
        )
    stages = len(features)
    arguments.update(n_stages=stages, features_per_stage=features)
    for key, value in arguments.items():
        if isinstance(value, list) and key in _PER_STAGE:
            arguments[key] = value[:stages]
        elif isinstance(value, list) and key == "n_conv_per_stage_decoder":
            arguments[key] = value[: stages - 1]
    return dict(architecture)


def _check_sizes(base: dict[str, Any], derived: dict[str, Any], file: Path, name: str) -> None:
    for key in ("spacing", "patch_size"):
        if key in derived and len(derived[key]) != len(base[key]):
            raise SIKDError(f"{file}: {name}'s {key} {derived[key]} must have {len(base[key])} values, as {base[key]}")
    whole = {**base, **derived}
    arguments = whole.get("architecture", {}).get("arch_kwargs", {})
    strides = for_each_stage(arguments.get("strides", []), arguments.get("n_stages"))
    for axis, size in enumerate(whole["patch_size"]):
        factor = 1
        for stride in strides:
            factor *= stride[axis] if isinstance(stride, list) else stride
        if size % factor:
            raise SIKDError(
                f"{file}: {name}'s patch size {whole['patch_size']} must be divisible by {factor} along axis {axis}"
            )

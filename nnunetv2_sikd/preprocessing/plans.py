"""Plans that people edit by hand, checked before nnU-Net takes them for what they say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError

_UNETS = ("PlainConvUNet", "ResidualEncoderUNet")  # whose arguments are known
_REMEDY = "mend it, or plan the data set anew with nnUNetv2_plan_experiment"


def check_configuration(plans: Mapping[str, Any], configuration: str, file: Path, dataset_name: str) -> None:
    """Check a configuration of plans.

    Args:
        plans: Content of the file.
        configuration: The one that is used.
        file: For messages.
        dataset_name: Data set in whose folder the file is.

    Raises:
        SIKDError: There is no such configuration, or a value cannot be.
    """
    configurations = plans["configurations"]
    if not isinstance(configurations, dict) or not all(isinstance(each, dict) for each in configurations.values()):
        raise SIKDError(f"{file}: 'configurations' must hold an object for each configuration; {_REMEDY}")
    if configuration not in configurations:
        raise SIKDError(
            f"{file}: has no configuration {configuration!r}; choose one of {', '.join(configurations)} with -c"
        )
    if plans["dataset_name"] != dataset_name:
        raise SIKDError(
            f"{file}: are the plans of {plans['dataset_name']!r}, and nnU-Net would write to that one's folders; plan "
            f"{dataset_name}, or move them with nnUNetv2_move_plans_between_datasets"
        )
    if plans["plans_name"] != file.stem:
        raise SIKDError(f"{file}: calls itself {plans['plans_name']!r}; rename the file, or mend its plans_name")
    whole = resolved(configurations, configuration, file)
    _check_values(whole, configuration, file)
    forward = plans.get("transpose_forward", [0, 1, 2])
    if not isinstance(forward, list) or sorted(map(str, forward)) != ["0", "1", "2"]:
        raise SIKDError(f"{file}: transpose_forward is {forward!r} and must name the axes 0, 1, 2 once each; {_REMEDY}")


def resolved(configurations: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """A configuration with what it inherits, as nnU-Net has it.

    Raises:
        SIKDError: It inherits from itself, or from none that is there.
    """
    chain: list[str] = []
    following: str | None = name
    while following is not None:
        if following in chain or following not in configurations:
            raise SIKDError(f"{file}: configuration {name!r} inherits from {following!r}, which cannot be; mend it")
        chain.append(following)
        following = configurations[following].get("inherits_from")
    return {key: value for part in reversed(chain) for key, value in configurations[part].items()}


def _check_values(configuration: Mapping[str, Any], name: str, file: Path) -> None:
    patch = configuration.get("patch_size")
    dimensions = len(patch) if isinstance(patch, list) else 0
    needed: dict[str, tuple[Callable[[Any], bool], str]] = {
        "patch_size": (
            lambda value: _list_of(value, _positive_int) and dimensions in (2, 3),
            "2 or 3 whole numbers above 0",
        ),
        "spacing": (
            lambda value: _list_of(value, _positive) and len(value) == dimensions,
            f"{dimensions} sizes in mm above 0",
        ),
        "batch_size": (_positive_int, "a whole number above 0"),
        "data_identifier": (lambda value: isinstance(value, str) and value != "", "the name of a folder"),
        "normalization_schemes": (lambda value: _list_of(value, lambda each: isinstance(each, str)), "a list of names"),
    }
    for key, (is_right, wanted) in needed.items():
        if key not in configuration:
            raise SIKDError(f"{file}: configuration {name!r} has no {key}; {_REMEDY}")
        if not is_right(configuration[key]):
            raise SIKDError(
                f"{file}: configuration {name!r} has {key} {configuration[key]!r}, which must be {wanted}; {_REMEDY}"
            )
    _check_architecture(configuration, name, file, dimensions)


def _check_architecture(configuration: Mapping[str, Any], name: str, file: Path, dimensions: int) -> None:
    architecture = configuration.get("architecture")
    if architecture is None and "UNet_class_name" in configuration:
        return  # of an older nnU-Net, which the present one converts
    arguments = architecture.get("arch_kwargs") if isinstance(architecture, dict) else None
    if not isinstance(architecture, dict) or not isinstance(arguments, dict):
        raise SIKDError(f"{file}: configuration {name!r} has no architecture with arch_kwargs; {_REMEDY}")
    if not str(architecture.get("network_class_name")).endswith(_UNETS):
        return
    stages = arguments.get("n_stages")
    features, strides = (for_each_stage(arguments.get(key), stages) for key in ("features_per_stage", "strides"))
    if not _positive_int(stages) or not _list_of(features, _positive_int) or len(features) != stages:
        raise SIKDError(
            f"{file}: configuration {name!r} has n_stages {stages!r} and features_per_stage "
            f"{arguments.get('features_per_stage')!r}, which must be as many whole numbers above 0; {_REMEDY}"
        )
    if not isinstance(strides, list) or len(strides) != stages:
        raise SIKDError(
            f"{file}: configuration {name!r} has strides {arguments.get('strides')!r}, and needs {stages}; {_REMEDY}"
        )
    for axis, size in enumerate(configuration["patch_size"]):
        steps = [
            stride[axis] if isinstance(stride, list) and len(stride) == dimensions else stride for stride in strides
        ]
        if not all(_positive_int(step) for step in steps):
            raise SIKDError(
                f"{file}: configuration {name!r} has strides {arguments['strides']!r}, which must be whole numbers "
                f"above 0, {dimensions} a stage; {_REMEDY}"
            )
        if size % math.prod(steps):
            raise SIKDError(
                f"{file}: configuration {name!r} has patch_size {configuration['patch_size']}, which must be divisible "
                f"by {math.prod(steps)} along axis {axis}; {_REMEDY}"
            )


def for_each_stage(value: Any, stages: Any) -> Any:
    """One value for each stage of a network, where one whole number may stand for all."""
    return [value] * stages if _positive_int(value) and _positive_int(stages) else value


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1e6


def _positive_int(value: Any) -> bool:
    return isinstance(value, int) and _positive(value)


def _list_of(value: Any, is_right: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(is_right(each) for each in value)

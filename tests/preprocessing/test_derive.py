"""Configurations derived from planned ones: nnU-Net itself must understand them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from tests.helpers import make_plans


@pytest.fixture(params=[False, True], ids=["plain", "residual"])
def plans(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / "nnUNetPlans.json"
    plans = make_plans("Dataset901_Tiny", residual=request.param)
    for configuration in plans["configurations"].values():  # of four stages, so that there are smaller ones
        arguments = configuration["architecture"]["arch_kwargs"]
        arguments["n_stages"] += 1
        for each in arguments.values():
            if isinstance(each, list):
                each.append(each[-1])
    file.write_text(json.dumps(plans))
    return file


def configuration_of(file: Path, name: str) -> Any:
    return PlansManager(json.loads(file.read_text())).get_configuration(name)


def refused(file: Path, name: str = "small", base: str = "2d", **changes: Any) -> str:
    before = file.read_text()
    with pytest.raises(SIKDError) as raised:
        derive_configuration(file, name, base, **changes)
    assert file.read_text() == before
    assert str(raised.value).startswith(f"{file}: ")
    return str(raised.value)


@pytest.mark.parametrize(("base", "dim"), [("2d", 2), ("3d_fullres", 3)])
def test_nnunet_builds_the_smaller_network(plans: Path, base: str, dim: int) -> None:
    changes = {"spacing": [2.0] * dim, "patch_size": [16] * dim, "batch_size": 3, "features_per_stage": [3, 5, 7]}
    derive_configuration(plans, "small", base, **changes)  # type: ignore[arg-type]
    configuration = configuration_of(plans, "small")
    assert (configuration.patch_size, configuration.batch_size) == ([16] * dim, 3)
    assert configuration.spacing == [2.0] * dim
    assert configuration.data_identifier == "nnUNetPlans_small"
    assert configuration.normalization_schemes == ["ZScoreNormalization"]  # inherited
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        3,
        deep_supervision=False,
    )
    assert network(torch.zeros(1, 1, *[16] * dim)).shape == (1, 3, *[16] * dim)
    assert len(network.encoder.stages) == 3


def test_without_another_spacing_the_cases_are_shared(plans: Path) -> None:
    derive_configuration(plans, "small", "2d", batch_size=7)
    assert configuration_of(plans, "small").data_identifier == "nnUNetPlans_2d"


def test_of_a_derived_one(plans: Path) -> None:
    derive_configuration(plans, "small", "2d", patch_size=[16, 16])
    derive_configuration(plans, "smaller", "small", features_per_stage=[3, 5, 7])
    assert configuration_of(plans, "smaller").patch_size == [16, 16]
    assert configuration_of(plans, "smaller").network_arch_init_kwargs["n_stages"] == 3


def test_twice_is_once_and_other_values_are_refused(plans: Path) -> None:
    derive_configuration(plans, "small", "2d", patch_size=[16, 16], batch_size=2)
    before = plans.read_text()
    derive_configuration(plans, "small", "2d", patch_size=[16, 16], batch_size=2)
    assert plans.read_text() == before
    for changes in ({"patch_size": [16, 16], "batch_size": 3}, {"patch_size": [16, 16]}, {}):
        assert "has another configuration named 'small'" in refused(plans, **changes)
    assert "has another configuration named '3d_fullres'" in refused(plans, "3d_fullres")


def test_of_the_first_stage_of_a_cascade(plans: Path) -> None:
    content = json.loads(plans.read_text())
    content["configurations"]["3d_fullres"]["next_stage"] = "3d_cascade_fullres"
    plans.write_text(json.dumps(content))
    derive_configuration(plans, "small", "3d_fullres", batch_size=3)
    assert configuration_of(plans, "3d_fullres").next_stage_names == ["3d_cascade_fullres"]
    assert configuration_of(plans, "small").next_stage_names is None


def test_only_checked(plans: Path) -> None:
    before = plans.read_text()
    derive_configuration(plans, "small", "2d", batch_size=2, write=False)
    assert plans.read_text() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"base": "2d_none"}, "has no configuration '2d_none' to derive 'small' from; it has 2d, 3d_fullres"),
        ({"features_per_stage": [1, 2, 3, 4, 5]}, "has 4 stages and features_per_stage names 5: name 3 to 4"),
        ({"features_per_stage": [4, 8]}, "names 2: name 3 to 4"),
        ({"patch_size": [28, 32]}, "small's patch size [28, 32] must be divisible by 8 along axis 0"),
        ({"patch_size": [32, 28]}, "must be divisible by 8 along axis 1"),
        ({"patch_size": [32, 32, 32]}, "small's patch_size [32, 32, 32] must have 2 values, as [32, 32]"),
        ({"spacing": [1.0]}, "small's spacing [1.0] must have 2 values"),
    ],
)
def test_values_that_do_not_fit(plans: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(plans, **changes)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_what_is_no_plans(tmp_path: Path, text: str) -> None:
    (tmp_path / "nnUNetPlans.json").write_text(text)
    assert "are no plans of nnU-Net" in refused(tmp_path / "nnUNetPlans.json")


def test_inheriting_in_a_circle(plans: Path) -> None:
    content = json.loads(plans.read_text())
    content["configurations"]["a"] = {"inherits_from": "b"}
    content["configurations"]["b"] = {"inherits_from": "a"}
    plans.write_text(json.dumps(content))
    assert "configuration 'a' inherits from 'a', which cannot be" in refused(plans, base="a")


def test_one_stride_for_all_stages(plans: Path) -> None:
    content = json.loads(plans.read_text())
    arguments = content["configurations"]["2d"]["architecture"]["arch_kwargs"]
    arguments["strides"] = 2
    plans.write_text(json.dumps(content))
    factor = 2 ** arguments["n_stages"]
    assert f"must be divisible by {factor} along axis 1" in refused(plans, patch_size=[factor, factor + 2])
    derive_configuration(plans, "small", "2d", patch_size=[factor, 2 * factor])
    assert configuration_of(plans, "small").patch_size == [factor, 2 * factor]

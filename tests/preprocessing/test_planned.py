from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration, find_dataset
from tests.helpers import PreprocessedDataset


def load(dataset: PreprocessedDataset, configuration: str = "2d") -> PlannedConfiguration:
    return PlannedConfiguration.load(dataset.name, configuration, "nnUNetPlans")


def test_a_planned_configuration(dataset_2d: PreprocessedDataset) -> None:
    planned = load(dataset_2d)
    assert planned.cases_folder() == dataset_2d.source
    assert planned.configuration.patch_size == [32, 32]
    assert planned.label_manager.foreground_labels == [1, 2]


@pytest.mark.parametrize("dataset", [901, "901", "Dataset901_Tiny"])
def test_data_sets_are_found_by_id_and_name(dataset_2d: PreprocessedDataset, dataset: str | int) -> None:
    assert find_dataset(dataset) == dataset_2d.name


@pytest.mark.parametrize("dataset", [902, "902", "Tiny"])
def test_unknown_data_set(dataset_2d: PreprocessedDataset, dataset: str | int) -> None:
    with pytest.raises(SIKDError, match=f"data set {dataset} is in none"):
        find_dataset(dataset)


def test_two_data_sets_of_one_id(dataset_2d: PreprocessedDataset) -> None:
    dataset_2d.folder.with_name("Dataset901_Other").mkdir()
    with pytest.raises(SIKDError, match="more than one has this id"):
        find_dataset(901)


def test_unknown_configuration_names_the_file_and_the_choice(dataset_2d: PreprocessedDataset) -> None:
    with pytest.raises(SIKDError, match=r"nnUNetPlans\.json.*'3d_lowres'.*2d, 3d_fullres"):
        load(dataset_2d, "3d_lowres")


@pytest.mark.parametrize("file", ["nnUNetPlans.json", "dataset.json"])
def test_not_planned(dataset_2d: PreprocessedDataset, file: str) -> None:
    (dataset_2d.folder / file).unlink()
    with pytest.raises(SIKDError, match=rf"{dataset_2d.folder / file}: not there.*nnUNetv2_plan_and_preprocess"):
        load(dataset_2d)


@pytest.mark.parametrize("file", ["nnUNetPlans.json", "dataset.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"configurations": '])
def test_damaged_json(dataset_2d: PreprocessedDataset, file: str, content: str) -> None:
    (dataset_2d.folder / file).write_text(content)
    with pytest.raises(SIKDError, match=str(dataset_2d.folder / file)):
        load(dataset_2d)


def test_json_that_is_not_text(dataset_2d: PreprocessedDataset) -> None:
    (dataset_2d.folder / "dataset.json").write_bytes(b"\xff\xfe\x00{}")
    with pytest.raises(SIKDError, match="not valid JSON"):
        load(dataset_2d)


def test_not_preprocessed(dataset_2d: PreprocessedDataset) -> None:
    with pytest.raises(SIKDError, match=r"nnUNetPlans_3d_fullres: not there.*nnUNetv2_preprocess .*-c 3d_fullres"):
        load(dataset_2d, "3d_fullres").cases_folder()


def test_empty_folder_of_cases(dataset_2d: PreprocessedDataset) -> None:
    for file in dataset_2d.source.iterdir():
        file.unlink()
    with pytest.raises(SIKDError, match=f"{dataset_2d.source}: has no preprocessed cases"):
        load(dataset_2d).cases_folder()


def test_cases_of_another_nnunet_version(dataset_2d: PreprocessedDataset) -> None:
    for file in dataset_2d.source.glob("*.b2nd"):
        file.unlink()
    (dataset_2d.source / "case_00.npz").touch()
    with pytest.raises(SIKDError, match=f"{dataset_2d.source}: preprocessed by another nnU-Net version"):
        load(dataset_2d).cases_folder()


def test_environment_variable_missing(dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed")
    with pytest.raises(SIKDError, match="nnUNet_preprocessed is not set"):
        load(dataset_2d)


def test_regions_keep_their_label_values(dataset_2d: PreprocessedDataset, tmp_path: Path) -> None:
    file = dataset_2d.folder / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    content["regions_class_order"] = [1, 2]
    file.write_text(json.dumps(content))
    planned = load(dataset_2d)
    assert planned.label_manager.has_regions
    assert planned.label_manager.all_labels == [0, 1, 2]


def with_network(dataset: PreprocessedDataset, arguments: dict[str, Any], name: str | None = None) -> None:
    file = dataset.folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["arch_kwargs"].update(arguments)
    architecture["network_class_name"] = name or architecture["network_class_name"]
    file.write_text(json.dumps(plans))


def test_one_number_for_all_stages(dataset_2d: PreprocessedDataset) -> None:
    with_network(dataset_2d, {"features_per_stage": 8, "strides": 2, "kernel_sizes": 3, "n_conv_per_stage": 2})
    assert load(dataset_2d).configuration.network_arch_init_kwargs["features_per_stage"] == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"strides": 0}, "strides 0"),
        ({"strides": 3}, "must be divisible by"),
        ({"features_per_stage": 0}, "features_per_stage 0"),
        ({"features_per_stage": 8, "n_stages": "3"}, "n_stages '3'"),
    ],
)
def test_one_number_that_cannot_be(dataset_2d: PreprocessedDataset, arguments: dict[str, Any], said: str) -> None:
    with_network(dataset_2d, arguments)
    with pytest.raises(SIKDError, match=said):
        load(dataset_2d)


def test_other_networks_have_arguments_of_their_own(dataset_2d: PreprocessedDataset) -> None:
    arguments = {"n_stages": None, "features_per_stage": "many", "strides": None}
    with_network(dataset_2d, arguments, "my_networks.Transformer")
    assert load(dataset_2d).configuration.network_arch_class_name == "my_networks.Transformer"
    with_network(dataset_2d, arguments, "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet")
    with pytest.raises(SIKDError, match="features_per_stage 'many'"):
        load(dataset_2d)

"""One slice: which, how it is cut, and its features by a second path."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_sikd.figures.cases import choose_slice, class_names
from nnunetv2_sikd.figures.networks import load_networks
from nnunetv2_sikd.figures.slice_features import compare, slice_features, summary
from tests.figures.conftest import STOCK, STUDENT, FinishFold, load
from tests.helpers import IGNORE_LABEL, PreprocessedDataset, make_preprocessed_dataset, read_array


def test_slice_depends_on_the_reference_alone() -> None:
    label = np.zeros((5, 4, 4), np.int16)
    label[0] = 1
    label[2, 0, :2] = [1, 2]  # most classes
    label[3, 0, :3] = [1, 2, 2]  # as many classes, more pixels
    label[4, 0, :3] = [1, 2, 1]  # the same again
    assert choose_slice(label, None) == 3
    assert choose_slice(label, 2) == 0
    assert choose_slice(np.full((3, 2, 2), -1, np.int16), None) == 0


@pytest.mark.parametrize(("regions", "names"), [(False, ["shell", "core"]), (True, ["whole", "whole, core"])])
def test_classes_are_disjoint_label_values(regions: bool, names: list[str], nnunet_folders: Path) -> None:
    dataset = make_preprocessed_dataset(
        nnunet_folders / "preprocessed", dim=2, num_cases=2, regions=regions, ignore=True
    )
    assert class_names(load(dataset)) == dict(enumerate(["background", *names]))


def by_identity_head(planned: Any, file: Path, patch: torch.Tensor) -> np.ndarray:
    """Penultimate features as the output of nnU-Net's network without its last layer."""
    network: Any = nnUNetTrainer.build_network_architecture(planned.plans, planned.configuration, 2, 3, False)
    network.load_state_dict(torch.load(file, weights_only=False)["network_weights"])
    network.decoder.seg_layers[-1] = nn.Identity()
    with torch.no_grad():
        return network.eval()(patch)[0].numpy()


@pytest.mark.parametrize("dim", [2, 3])
def test_features_by_a_second_path(dim: int, nnunet_folders: Path, finish_fold: FinishFold) -> None:
    dataset = make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=dim, num_cases=2, channels=2, ignore=True)
    files, planned = finish_fold(dataset), load(dataset)
    z = 2 if dim == 2 else 9
    view = slice_features(planned, load_networks(planned, 0, STUDENT, STOCK), "case_00", z)

    image = read_array(dataset.source / "case_00.b2nd")
    label = read_array(dataset.source / "case_00_seg.b2nd")[0]
    rows, columns = np.nonzero((label[z] > 0) & (label[z] != IGNORE_LABEL))
    size = 32 if dim == 2 else 16
    y, x = (
        int(np.clip((i.min() + i.max() + 1) // 2 - size // 2, 0, whole - size))
        for i, whole in ((rows, label.shape[1]), (columns, label.shape[2]))
    )
    where = (slice(z, z + 1) if dim == 2 else slice(z - 8, z + 8), slice(y, y + size), slice(x, x + size))
    patch, part = image[(slice(None), *where)], label[where]
    shown = 0 if dim == 2 else 8
    np.testing.assert_array_equal(view.image, patch[:, shown])
    np.testing.assert_array_equal(view.label, np.maximum(part[shown], 0))
    np.testing.assert_array_equal(view.counted, part[shown] != IGNORE_LABEL)
    flat = np.empty_like(patch)
    for c, k in ((c, k) for c in range(2) for k in (0, 1, 2, IGNORE_LABEL)):
        inside = np.maximum(part, 0) == k
        flat[c][inside] = patch[c][inside].mean(dtype=np.float64)
    np.testing.assert_allclose(view.teacher_input, flat[:, shown], rtol=1e-5, atol=1e-6)

    tensor = torch.from_numpy(patch[:, 0] if dim == 2 else patch)[None]
    for name in ("student", "stock"):
        features = by_identity_head(planned, files[name], tensor)
        np.testing.assert_allclose(
            view.features[name], features if dim == 2 else features[:, shown], rtol=1e-4, atol=1e-5
        )
    counted = part[shown] != IGNORE_LABEL
    for row in compare(view):
        region = counted & (part[shown] > 0) if row["region"] == "foreground" else counted
        difference = view.features[row["network"]] - view.features["teacher"]
        assert row["mse"] == pytest.approx(np.mean([np.square(each[region]).mean() for each in difference]))
        assert row["mse_rotated"] <= row["mse"] or row["region"] == "foreground"
        assert row["pixels"] == region.sum()
        assert row["teacher_variance"] == pytest.approx(
            np.mean([each[region].var() for each in view.features["teacher"]])
        )
    assert f"student to teacher, slice: MSE {compare(view)[0]['mse']:.3f}" in summary(compare(view))


def test_teacher_features_are_those_of_its_own_forward_pass(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold
) -> None:
    finish_fold(dataset_2d)
    planned = load(dataset_2d)
    networks = load_networks(planned, 0, STUDENT, STOCK)
    for network in (networks.teacher, *networks.students.values()):
        assert not network.encoder.training  # dropout, where plans have it, would blur the features
    view = slice_features(planned, networks, "case_01")
    seen: list[torch.Tensor] = []
    networks.teacher.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    networks.teacher(torch.from_numpy(view.teacher_input)[None])
    np.testing.assert_allclose(seen[-1][0].numpy(), view.features["teacher"], rtol=1e-4, atol=1e-5)


def with_patch(planned: Any, size: int) -> Any:
    plans = {**planned.plans.plans}
    plans["configurations"] = {**plans["configurations"]}
    plans["configurations"]["2d"] = {**plans["configurations"]["2d"], "patch_size": [size, size]}
    return replace(planned, plans_json=plans)


def test_small_slices_are_padded_and_shown_without_padding(
    dataset_2d: PreprocessedDataset, finish_fold: FinishFold
) -> None:
    finish_fold(dataset_2d)
    planned = with_patch(load(dataset_2d), 48)
    view = slice_features(planned, load_networks(planned, 0, STUDENT, STOCK), "case_00", 0)
    image = read_array(dataset_2d.source / "case_00.b2nd")[:, 0]
    label = read_array(dataset_2d.source / "case_00_seg.b2nd")[0, 0]
    np.testing.assert_array_equal(view.image, image)
    assert {each.shape[1:] for each in view.features.values()} == {label.shape}
    # As in training, the zeros around the slice are background and take part in its mean.
    outside = np.maximum(label, 0) == 0
    expected = image[:, outside].sum(1, dtype=np.float64) / (outside.sum() + 48 * 48 - label.size)
    np.testing.assert_allclose(view.teacher_input[:, outside][:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("variant", ["_copyView", "_teacherOnImages", "_teacherOnLabelMaps"])
def test_teacher_sees_what_taught(variant: str, dataset_2d: PreprocessedDataset, finish_fold: FinishFold) -> None:
    student = STUDENT.replace("Student", f"Student{variant}")
    finish_fold(dataset_2d, student)
    planned = load(dataset_2d)
    networks = load_networks(planned, 0, student)
    assert set(networks.students) == {"student", "stock"}
    view = slice_features(planned, networks, "case_00", 0)
    if variant == "_teacherOnImages":
        np.testing.assert_array_equal(view.teacher_input, view.image)
    elif variant == "_teacherOnLabelMaps":
        shown = np.where(view.counted, view.label, 0) / 2
        np.testing.assert_array_equal(view.teacher_input, np.stack([shown, shown]))
    else:  # the average of the whole slice, not of the patch
        image = read_array(dataset_2d.source / "case_00.b2nd")[:, 0]
        label = np.maximum(read_array(dataset_2d.source / "case_00_seg.b2nd")[0, 0], 0)
        np.testing.assert_allclose(
            view.teacher_input[:, view.label == 0][:, 0], image[:, label == 0].mean(1), rtol=1e-4, atol=1e-5
        )

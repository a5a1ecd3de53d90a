"""A tiny preprocessed data set and tiny networks, as nnU-Net itself would make them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import SimpleITK
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

PATCH_SIZES = {2: [32, 32], 3: [16, 16, 16]}
CONFIGURATIONS = {2: "2d", 3: "3d_fullres"}
IMAGE_SHAPES = {2: (4, 40, 36), 3: (20, 24, 22)}
SPACINGS = {2: (5.0, 1.0, 1.0), 3: (1.0, 1.0, 1.0)}
IGNORE_LABEL = 3


@dataclass(frozen=True)
class PreprocessedDataset:
    """Where a data set lies in ``nnUNet_preprocessed``, and what it holds."""

    folder: Path
    configuration: str
    cases: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def source(self) -> Path:
        """Folder of the preprocessed cases."""
        return self.folder / f"nnUNetPlans_{self.configuration}"

    @property
    def copies(self) -> Path:
        """Folder in which the class-averaged copies belong."""
        unit = "slice" if self.configuration == "2d" else "volume"
        return self.folder / f"{self.source.name}_SIKD_per_{unit}"

    def become_second_stage(self) -> None:
        """Plan its configuration as the second stage of a cascade."""
        file = self.folder / "nnUNetPlans.json"
        plans = json.loads(file.read_text())
        plans["configurations"][self.configuration]["previous_stage"] = "3d_lowres"
        file.write_text(json.dumps(plans))


def make_preprocessed_dataset(
    folder: Path,
    *,
    dim: int,
    regions: bool = False,
    ignore: bool = False,
    residual: bool = False,
    num_cases: int = 5,
    channels: int = 1,
    name: str = "Dataset901_Tiny",
) -> PreprocessedDataset:
    """Write a data set of balls inside balls into ``folder``, which is to be ``nnUNet_preprocessed``.

    It has everything that nnU-Net's training, final validation included, reads: plans with a 2D and a 3D
    configuration, of which the one of ``dim`` is preprocessed; ``dataset.json``; splits, fold i with case i
    held out; ground truth. Label 1 is the outer ball, 2 the inner one; outside the head-like mask nnU-Net's
    cropping makes -1. With ``ignore``, some rows of every label are the ignore label 3.
    """
    target = folder / name
    cases = tuple(f"case_{i:02d}" for i in range(num_cases))
    dataset = PreprocessedDataset(target, CONFIGURATIONS[dim], cases)
    (target / "gt_segmentations").mkdir(parents=True)
    dataset.source.mkdir()

    dataset_json = make_dataset_json(regions=regions, ignore=ignore, channels=channels, num_cases=num_cases)
    plans = make_plans(name, residual=residual, channels=channels)
    splits = [{"train": [c for c in cases if c != held_out], "val": [held_out]} for held_out in cases]
    for file, content in (
        ("dataset.json", dataset_json),
        ("nnUNetPlans.json", plans),
        ("splits_final.json", splits),
        ("dataset_fingerprint.json", _make_fingerprint(dim, channels, num_cases)),
    ):
        (target / file).write_text(json.dumps(content))

    plans_manager = PlansManager(plans)
    for number, case in enumerate(cases):
        image, label = make_case(dim, channels=channels, ignore=ignore, seed=number)
        spacing = SPACINGS[dim]
        written = SimpleITK.GetImageFromArray(label)
        written.SetSpacing(spacing[::-1])
        SimpleITK.WriteImage(written, str(target / "gt_segmentations" / f"{case}.nii.gz"))
        properties = {
            "sitk_stuff": {
                "spacing": spacing[::-1],
                "origin": (0.0, 0.0, 0.0),
                "direction": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            },
            "spacing": list(spacing),
        }
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case_npy(
            image,
            label[None].astype(np.int16),
            properties,
            plans_manager,
            plans_manager.get_configuration(dataset.configuration),
            dataset_json,
        )
        save_case(dataset.source, case, data, seg, properties, PATCH_SIZES[dim])
    return dataset


def make_dataset_json(*, regions: bool, ignore: bool, channels: int, num_cases: int) -> dict[str, Any]:
    labels: dict[str, Any] = {"background": 0, "shell": 1, "core": 2}
    if regions:
        labels = {"background": 0, "whole": [1, 2], "core": [2]}
    if ignore:
        labels["ignore"] = IGNORE_LABEL
    return {
        "channel_names": {str(c): f"contrast {c}" for c in range(channels)},
        "labels": labels,
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
        **({"regions_class_order": [1, 2]} if regions else {}),
    }


def make_plans(name: str, *, residual: bool = False, channels: int = 1) -> dict[str, Any]:
    return {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(SPACINGS[3]),
        "original_median_shape_after_transp": list(IMAGE_SHAPES[3]),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {name: _make_configuration(dim, residual, channels) for dim, name in CONFIGURATIONS.items()},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _intensities(channels),
    }


def make_architecture(dim: int, *, residual: bool = False) -> dict[str, Any]:
    """Three stages of 4 to 8 features."""
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 6, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * 3,
            "strides": [[1] * dim, [2] * dim, [2] * dim],
            blocks: [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def make_network(
    dim: int, *, residual: bool = False, deep_supervision: bool = True, channels: int = 1, heads: int = 3
) -> nn.Module:
    """nnU-Net's network, built as nnU-Net does, with three stages."""
    architecture = make_architecture(dim, residual=residual)
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        heads,
        deep_supervision=deep_supervision,
    )


def make_case(dim: int, *, channels: int = 1, ignore: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Image ``(C, Z, Y, X)`` whose classes differ in intensity, and label ``(Z, Y, X)``."""
    random = np.random.default_rng(seed)
    shape = IMAGE_SHAPES[dim]
    # Per-slice discs for 2D, balls for 3D: the first axis counts only there.
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    centre = random.uniform(-0.15, 0.15, 3)
    distance = np.sqrt(sum((x - c) ** 2 for x, c in zip(axes[3 - dim :], centre[3 - dim :], strict=True)))
    label = np.digitize(distance, [0.3, 0.6])
    label = (2 - label).astype(np.uint8)
    levels = np.array([100.0, 200.0, 300.0])[label]
    image = np.stack([levels * (c + 1) + random.normal(0, 20, shape) for c in range(channels)])
    # Nothing outside a large ellipse: nnU-Net marks it with -1.
    outside = np.sqrt(sum(x**2 for x in axes[1:])) > 1.2
    image[:, np.broadcast_to(outside, shape)] = 0
    if ignore:
        label[:, shape[1] // 2 : shape[1] // 2 + 3] = IGNORE_LABEL
    return image.astype(np.float32), label


def save_case(
    folder: Path,
    case: str,
    data: np.ndarray,
    seg: np.ndarray,
    properties: dict[str, Any],
    patch_size: list[int],
) -> None:
    """Save a preprocessed case ``(C, Z, Y, X)``, as nnU-Net's preprocessor does; replaces an earlier one."""
    for file in folder.glob(f"{case}[._]*"):
        file.unlink()
    data, seg = data.astype(np.float32, copy=False), seg.astype(np.int16, copy=False)
    blocks, chunks = comp_blosc2_params(data.shape, patch_size, data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch_size, seg.itemsize)
    nnUNetDatasetBlosc2.save_case(
        data,
        seg,
        properties,
        str(folder / case),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )


def read_array(file: Path) -> np.ndarray:
    """Content of a ``.b2nd`` file."""
    return blosc2.open(urlpath=str(file), mode="r")[:]


def _make_configuration(dim: int, residual: bool, channels: int) -> dict[str, Any]:
    resampling = "resample_data_or_seg_to_shape"
    how = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"nnUNetPlans_{CONFIGURATIONS[dim]}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": PATCH_SIZES[dim],
        "median_image_size_in_voxels": [float(size) for size in IMAGE_SHAPES[dim][3 - dim :]],
        "spacing": list(SPACINGS[dim][3 - dim :]),
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_data_kwargs": how,
        "resampling_fn_seg_kwargs": {**how, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": {**how, "order": 1},
        "architecture": make_architecture(dim, residual=residual),
        "batch_dice": dim == 2,
    }


def _make_fingerprint(dim: int, channels: int, num_cases: int) -> dict[str, Any]:
    return {
        "foreground_intensity_properties_per_channel": _intensities(channels),
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": [list(IMAGE_SHAPES[dim])] * num_cases,
        "spacings": [list(SPACINGS[dim])] * num_cases,
    }


def _intensities(channels: int) -> dict[str, dict[str, float]]:
    properties = {
        "max": 400.0,
        "mean": 230.0,
        "median": 220.0,
        "min": 100.0,
        "percentile_00_5": 110.0,
        "percentile_99_5": 390.0,
        "std": 50.0,
    }
    return {str(c): properties for c in range(channels)}

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.transforms.teacher_input import (
    AppendForTeacherTransform,
    ClassAverageTransform,
    LabelMapTransform,
    TakeOutCopyTransform,
    insert_at_label_map,
    label_map_image,
)

# Patch size, size of what the loader delivers, whether augmented slice by slice.
GEOMETRIES = pytest.mark.parametrize(
    ("patch_size", "loaded", "dummy_2d"),
    [((24, 28), (40, 44), False), ((4, 24, 28), (4, 40, 44), True), ((14, 16, 18), (24, 26, 28), False)],
    ids=["2d", "dummy 2d", "3d"],
)


def stock_transforms(patch_size: tuple[int, ...], dummy_2d: bool, **options: Any) -> ComposeTransforms:
    """nnU-Net's training transforms, as its trainer asks for them."""
    return nnUNetTrainer.get_training_transforms(
        patch_size,
        (-math.pi, math.pi),
        options.pop("deep_supervision_scales", None),
        options.pop("mirror_axes", tuple(range(len(patch_size)))),
        dummy_2d,
        use_mask_for_norm=[False],
        foreground_labels=[1, 2],
        **options,
    )


def with_copies(pipeline: ComposeTransforms, *, with_label: bool = False) -> ComposeTransforms:
    """Carry copies through the transforms, as the student's trainer does."""
    insert_at_label_map(pipeline, AppendForTeacherTransform(with_label))
    pipeline.transforms.insert(0, TakeOutCopyTransform())
    return pipeline


def make_label(shape: tuple[int, ...]) -> torch.Tensor:
    """Label ``(1, *spatial)`` with two boxes and a -1 margin, unlike itself turned or mirrored."""
    label = torch.zeros(shape, dtype=torch.int16)
    label[..., : shape[-1] // 8] = -1
    in_plane = label if len(shape) == 2 else label[: max(2, shape[0] * 2 // 3)]
    height, width = shape[-2:]
    in_plane[..., height // 5 : height // 2, width // 4 : width * 4 // 5] = 1
    in_plane[..., height // 2 : height * 3 // 4, width // 4 : width // 2] = 2
    return label[None]


def draw(pipeline: ComposeTransforms, image: torch.Tensor, label: torch.Tensor, seed: int) -> dict[str, Any]:
    np.random.seed(seed)
    torch.manual_seed(seed)
    return pipeline(image=image.clone(), segmentation=label.clone())


class TestCopyThroughStockAugmentation:
    @GEOMETRIES
    def test_has_the_geometry_of_the_segmentation(
        self, patch_size: tuple[int, ...], loaded: tuple[int, ...], dummy_2d: bool
    ) -> None:
        pipeline = with_copies(stock_transforms(patch_size, dummy_2d))
        label = make_label(loaded)
        indicators = torch.cat([label == 1, label == 2]).float()
        image = torch.cat([torch.randn(2, *loaded), indicators])
        seen = set()
        for seed in range(25):
            result = draw(pipeline, image, label, seed)
            copy, segmentation = result["image"][2:], result["segmentation"][0]
            assert "regression_target" not in result
            assert copy.shape == (2, *patch_size)
            for value in (1, 2):
                # Away from borders: there, interpolated indicators leave 0 and 1.
                assert (segmentation[copy[value - 1] > 0.55] == value).all()
                assert (segmentation[copy[value - 1] < 0.2] != value).all()
            seen.add(segmentation.numpy().tobytes())
        assert len(seen) > 10

    @GEOMETRIES
    def test_is_not_touched_by_intensity_transforms(
        self, patch_size: tuple[int, ...], loaded: tuple[int, ...], dummy_2d: bool
    ) -> None:
        pipeline = with_copies(stock_transforms(patch_size, dummy_2d, mirror_axes=None))
        for step in pipeline.transforms:
            if isinstance(step, RandomTransform):
                step.apply_probability = 1.0
            if isinstance(step, SpatialTransform):
                step.p_rotation = step.p_scaling = 0
        image = torch.randn(1, *loaded)
        result = draw(pipeline, torch.cat([image, image]), make_label(loaded), seed=0)["image"]
        centre = tuple(
            slice((full - kept) // 2, (full + kept) // 2) for full, kept in zip(loaded, patch_size, strict=True)
        )
        assert torch.equal(result[1], image[0][centre])
        assert (result[0] - result[1]).abs().mean() > 0.1

    @GEOMETRIES
    def test_label_map_is_appended_before_regions_replace_it(
        self, patch_size: tuple[int, ...], loaded: tuple[int, ...], dummy_2d: bool
    ) -> None:
        pipeline = stock_transforms(
            patch_size, dummy_2d, regions=[(1, 2), (2,)], deep_supervision_scales=[[1] * len(patch_size)]
        )
        insert_at_label_map(pipeline, AppendForTeacherTransform(with_label=True))
        for seed in range(5):
            result = draw(pipeline, torch.randn(1, *loaded), make_label(loaded), seed)
            assert result["image"].shape == (2, *patch_size)
            appended, target = result["image"][-1], result["segmentation"][0]
            assert set(appended.unique().tolist()) <= {0.0, 1.0, 2.0}
            assert torch.equal(target[0] > 0, appended > 0)
            assert torch.equal(target[1] > 0, appended == 2)


class TestClassAverage:
    def test_by_hand(self) -> None:
        image = torch.tensor([[[1.0, 3.0, 10.0]], [[2.0, 4.0, 20.0]]])
        label = torch.tensor([[[0, 0, 1]]], dtype=torch.int16)
        result = ClassAverageTransform()(image=image, segmentation=label)
        assert result["image"].tolist() == [[[2.0, 2.0, 10.0]], [[3.0, 3.0, 20.0]]]
        assert result["segmentation"] is label

    def test_ignore_label_is_averaged_apart(self) -> None:
        image, label = torch.tensor([[[1.0, 3.0, 10.0]]]), torch.tensor([[[0, 3, 3]]], dtype=torch.int16)
        assert ClassAverageTransform(3)(image=image, segmentation=label)["image"].tolist() == [[[1.0, 6.5, 6.5]]]

    def test_only_the_first_channel_of_the_segmentation_counts(self) -> None:
        image, label = torch.randn(1, 6, 6), torch.randint(0, 3, (2, 6, 6), dtype=torch.int16)
        result = ClassAverageTransform()(image=image, segmentation=label)["image"]
        assert torch.equal(result, class_average(image[None], label[None, :1])[0])

    @GEOMETRIES
    def test_stock_augmentation_ends_piecewise_constant(
        self, patch_size: tuple[int, ...], loaded: tuple[int, ...], dummy_2d: bool
    ) -> None:
        pipeline = insert_at_label_map(stock_transforms(patch_size, dummy_2d), ClassAverageTransform())
        label = make_label(loaded)
        flat = class_average(torch.randn(1, 2, *loaded), label[None])[0]
        for seed in range(10):
            result = draw(pipeline, flat, label, seed)
            image, segmentation = result["image"], result["segmentation"][0]
            assert image.shape == (2, *patch_size)
            for value in segmentation.unique():
                assert all(len(channel[segmentation == value].unique()) == 1 for channel in image)


class TestLabelMap:
    def test_image(self) -> None:
        label = torch.tensor([-1, 0, 1, 2, 4, 5], dtype=torch.int16)  # 5: the ignore label, no class
        image = label_map_image(label, 4)
        assert image.dtype == torch.float32
        assert image.tolist() == [0, 0, 0.25, 0.5, 1, 0]

    def test_image_of_background_alone(self) -> None:
        assert label_map_image(torch.tensor([0, 0]), 0).tolist() == [0, 0]

    def test_transform_fills_every_channel(self) -> None:
        image, label = torch.randn(3, 1, 2), torch.tensor([[[1, 2]]], dtype=torch.int16)
        result = LabelMapTransform(2)(image=image, segmentation=label)["image"]
        assert result.tolist() == [[[0.5, 1.0]]] * 3
        assert result.dtype == image.dtype
        result[0] = 7  # memory of its own: a later transform may write into one channel
        assert result[1].tolist() == [[0.5, 1.0]]


class TestTakeOutAndAppend:
    def test_take_out_splits_in_the_middle(self) -> None:
        data = torch.arange(8.0).reshape(4, 2, 1)
        result = TakeOutCopyTransform()(image=data, segmentation=torch.zeros(1, 2, 1))
        assert torch.equal(result["image"], data[:2])
        assert torch.equal(result["regression_target"], data[2:])

    def test_append_joins_image_copy_and_label(self) -> None:
        image, copy = torch.ones(2, 1, 1), torch.full((2, 1, 1), 2.0)
        label = torch.full((1, 1, 1), 3, dtype=torch.int16)
        result = AppendForTeacherTransform(True)(image=image, regression_target=copy, segmentation=label)
        assert result["image"].flatten().tolist() == [1, 1, 2, 2, 3]
        assert result["image"].dtype == torch.float32
        assert "regression_target" not in result

    @pytest.mark.parametrize(("with_label", "expected"), [(False, [1.0]), (True, [1.0, 3.0])])
    def test_append_without_a_copy(self, with_label: bool, expected: list[float]) -> None:
        label = torch.full((1, 1, 1), 3, dtype=torch.int16)
        result = AppendForTeacherTransform(with_label)(image=torch.ones(1, 1, 1), segmentation=label)
        assert result["image"].flatten().tolist() == expected


class TestInsertion:
    def test_comes_right_after_minus_one_becomes_background(self) -> None:
        pipeline = stock_transforms((24, 24), False, regions=[(1, 2), (2,)])
        transform = ClassAverageTransform()
        inserted = insert_at_label_map(pipeline, transform)
        place = inserted.transforms.index(transform)
        before = inserted.transforms[place - 1]
        assert isinstance(before, RemoveLabelTansform)
        assert before.label_value == -1
        assert [type(step).__name__ for step in inserted.transforms[place + 1 :]] == [
            "ConvertSegmentationToRegionsTransform"
        ]

    def test_validation_transforms_have_the_place(self) -> None:
        pipeline = nnUNetTrainer.get_validation_transforms(None, foreground_labels=[1, 2])
        transform = ClassAverageTransform()
        assert transform in insert_at_label_map(pipeline, transform).transforms

    @pytest.mark.parametrize(
        "steps",
        [[], [RemoveLabelTansform(3, 0)], [RemoveLabelTansform(-1, 0), RemoveLabelTansform(-1, 0)]],
        ids=["empty", "another label", "two places"],
    )
    def test_without_one_such_place_is_an_error(self, steps: list[Any]) -> None:
        with pytest.raises(SIKDError, match="expected one place"):
            insert_at_label_map(ComposeTransforms(steps), ClassAverageTransform())

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.transforms.class_jitter import (
    ClassContrastTransform,
    ClassJitterTransform,
    ClassVariationTransform,
    JitterLevels,
    WithOwnRandomness,
    with_class_jitter,
)
from tests.transforms.test_teacher_input import GEOMETRIES, draw, make_label, stock_transforms

FLAT = {"do_dummy_2d_data_aug": False}
LABEL = torch.tensor([[[0, 0, 0, 1, 1, 1, 1, 2, 2, 2]] * 4])
IMAGE = torch.randn(2, 4, 10, generator=torch.Generator().manual_seed(1))


def jittered(image: torch.Tensor = IMAGE, label: torch.Tensor = LABEL, seed: int = 0, **settings: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    result: torch.Tensor = ClassJitterTransform(**settings)(image=image.clone(), segmentation=label.clone())["image"]
    return result


def averaged(image: torch.Tensor, label: torch.Tensor = LABEL, **options: Any) -> torch.Tensor:
    return class_average(image[None], label[None], **options)[0]


def test_without_strength_the_image_stays() -> None:
    torch.testing.assert_close(jittered(level_sd=0.0, texture=(1.0, 1.0)), IMAGE)


def test_moves_levels_class_by_class_and_channel_by_channel() -> None:
    moved = jittered(level_sd=1.0, texture=(1.0, 1.0), border=1) - IMAGE
    torch.testing.assert_close(moved, averaged(moved), rtol=0, atol=1e-5)
    assert len(averaged(moved).round(decimals=3).unique()) == 6  # three classes in two channels


def test_scales_texture_and_keeps_levels() -> None:
    result = jittered(level_sd=0.0, texture=(0.5, 1.5), border=1)
    torch.testing.assert_close(averaged(result), averaged(IMAGE))
    gains = (result - averaged(IMAGE)) / (IMAGE - averaged(IMAGE))
    torch.testing.assert_close(gains, averaged(gains), rtol=1e-3, atol=1e-3)
    assert 0.5 <= gains.min() < gains.max() <= 1.5


def test_no_texture_at_gain_0() -> None:
    torch.testing.assert_close(jittered(level_sd=0.0, texture=(0.0, 0.0)), averaged(IMAGE))


def test_levels_have_their_standard_deviation() -> None:
    label = torch.arange(4000).reshape(1, 4000)
    image = torch.arange(4000).remainder(2).float()[None] * 6  # standard deviation 3
    moved = jittered(image, label, level_sd=0.7, texture=(1.0, 1.0), border=1) - image
    assert moved.std().item() == pytest.approx(3 * 0.7, rel=0.05)
    assert moved.mean().abs() < 0.15


def test_borders_are_as_soft_as_a_moving_average() -> None:
    label = (torch.arange(12) >= 6).long().expand(1, 5, 12)
    image = torch.arange(60).remainder(2).float().reshape(1, 5, 12)
    moved = (jittered(image, label, level_sd=1.0, texture=(1.0, 1.0), border=3) - image)[0, 2]
    low, high = moved[0], moved[-1]
    steps = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]) / 3
    assert abs(high - low) > 0.1
    torch.testing.assert_close(moved, low + steps * (high - low), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
@pytest.mark.parametrize("shape", [(7,), (7, 6), (5, 7, 6)])
def test_any_number_of_axes(shape: tuple[int, ...], transform: type[ClassJitterTransform]) -> None:
    result = transform()(image=torch.randn(3, *shape), segmentation=torch.randint(0, 3, (1, *shape)))["image"]
    assert result.shape == (3, *shape)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
def test_minus_one_is_background(transform: type[ClassJitterTransform]) -> None:
    label = torch.tensor([[-1, -1, 0, 0, 3, 3, 1, 1]])
    image = torch.tensor([[0.0, 2.0, 4.0, 6.0, 100.0, 300.0, 1.0, 1.0]])
    values = transform(texture=(0.0, 0.0), border=1)(image=image, segmentation=label)["image"][0]
    assert (values == values[[0, 0, 0, 0, 4, 4, 6, 6]]).all()
    assert values.unique().numel() == 3


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
def test_what_is_masked_changes_nothing_inside(transform: type[ClassJitterTransform]) -> None:
    image, label = torch.randn(2, 6, 20), torch.randint(0, 3, (1, 6, 20))
    label[:, 0, :3] = torch.arange(3)
    wide, wide_label = torch.zeros(2, 30, 20), torch.full((1, 30, 20), -1)
    wide[:, :6], wide_label[:, :6] = image, label
    for seed in range(5):
        results = []
        for masked, each, its_label in (([], image, label), ([0, 1], wide, wide_label)):
            torch.manual_seed(seed)
            given = transform(border=1, masked=masked)
            # One draw more for what is outside: the draws of both are made the same.
            given.get_parameters = partial(same_draws, given.get_parameters)  # type: ignore[method-assign]
            results.append(given(image=each.clone(), segmentation=its_label.clone())["image"][:, :6])
        torch.testing.assert_close(*results)


def same_draws(get_parameters: Any, **data: Any) -> Any:
    """Call with levels and gains that do not depend on how many there are."""
    drawn = torch.randn(2, 4), torch.rand(2, 4) + 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda shape: drawn[0][:, : shape[1]].clone())
        patch.setattr(torch.Tensor, "uniform_", lambda self, *_: drawn[1][:, : self.shape[1]].clone())
        return get_parameters(**data)


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
def test_the_mask_shows_in_its_own_channels_only(transform: type[ClassJitterTransform]) -> None:
    image, label = torch.ones(3, 6, 20), torch.zeros(1, 6, 20, dtype=torch.int16)
    label[:, 2:] = -1
    for seed in range(5):
        torch.manual_seed(seed)
        image[:, 0, 0] = 3  # something to have a standard deviation
        result = transform(border=1, masked=[1])(image=image.clone(), segmentation=label)["image"]
        seen = [len(result[channel, :, 5:].round(decimals=4).unique()) for channel in range(3)]
        assert seen == [1, 2, 1]


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
def test_an_image_that_is_all_masked(transform: type[ClassJitterTransform]) -> None:
    result = transform(masked=[0])(image=torch.zeros(1, 5, 5), segmentation=torch.full((1, 5, 5), -1))["image"]
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("transform", [ClassJitterTransform, ClassContrastTransform])
def test_thick_slices_do_not_show_in_each_other(transform: type[ClassJitterTransform]) -> None:
    label = torch.zeros(1, 4, 9, 9, dtype=torch.long)
    label[:, 1, 3:6, 3:6] = 1
    image = torch.randn(1, 4, 9, 9)
    shown = []
    for thick in (True, False):
        torch.manual_seed(1)
        result = transform(texture=(0.0, 0.0), thick_slices=thick)(image=image.clone(), segmentation=label.clone())
        below = result["image"][0, 2]
        shown.append((below[3:6, 3:6].mean() - below[0].mean()).abs().item())
    assert shown[0] < 1e-5
    assert shown[1] > 0.01


def test_the_segmentation_stays() -> None:
    label = make_label((20, 24))
    result = ClassJitterTransform()(image=torch.randn(1, 20, 24), segmentation=label.clone())
    assert torch.equal(result["segmentation"], label)


def test_follows_torch_s_seed() -> None:
    assert torch.equal(jittered(seed=3), jittered(seed=3))
    assert not torch.equal(jittered(seed=3), jittered(seed=4))


@pytest.mark.parametrize("settings", [{"level_sd": -1}, {"texture": (1.5, 0.5)}, {"texture": (-1, 1)}, {"border": 2}])
def test_settings_that_mean_nothing(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="odd"):
        ClassJitterTransform(**settings)


class TestContrast:
    def contrasted(self, image: torch.Tensor, label: torch.Tensor, seed: int = 0, **settings: Any) -> torch.Tensor:
        torch.manual_seed(seed)
        transform = ClassContrastTransform(**settings)
        result: torch.Tensor = transform(image=image.clone(), segmentation=label.clone())["image"]
        return result

    def test_levels_do_not_depend_on_what_they_were(self) -> None:
        label = torch.arange(4000).reshape(1, 4000)
        image = torch.arange(4000).remainder(2).float()[None] * 6 + 10  # mean 13, standard deviation 3
        levels = self.contrasted(image, label, level_sd=1.0, texture=(1.0, 1.0), border=1)
        assert levels.mean().item() == pytest.approx(13, abs=0.2)
        assert levels.std().item() == pytest.approx(3, rel=0.05)
        assert abs(np.corrcoef(levels[0], image[0])[0, 1]) < 0.05

    def test_textures_keep_their_form_and_turn_around_together(self) -> None:
        signs = []
        for seed in range(40):
            result = self.contrasted(IMAGE, LABEL, seed, border=1)
            gains = (result - averaged(result)) / (IMAGE - averaged(IMAGE))
            torch.testing.assert_close(gains, averaged(gains), rtol=1e-2, atol=1e-2)
            assert ((gains.abs() > 0.49) & (gains.abs() < 1.51)).all()
            assert all(channel.sign().unique().numel() == 1 for channel in gains)
            signs.append(gains[:, 0, 0].sign())
        turned = (torch.stack(signs) < 0).float()
        assert 0.3 < turned.mean() < 0.7
        assert 8 < (turned[:, 0] != turned[:, 1]).sum() < 32  # each channel has a sign of its own

    def test_a_turned_image_has_no_outlines(self) -> None:
        label = (torch.arange(24) >= 12).long().expand(1, 9, 24)
        steps = torch.tensor([*[0.0] * 11, 1 / 3, 2 / 3, *[1.0] * 11])  # as soft a border as scanners make
        image = steps.expand(1, 9, 24)
        beyond, beyond_if_sharp = [], []
        for seed in range(20):
            row = self.contrasted(image, label, seed)[0, 4]
            low, high = row[[0, -1]].sort().values
            beyond.append(max(low - row.min(), row.max() - high).item())
            row = self.contrasted((image > 0.5).float(), label, seed)[0, 4]
            beyond_if_sharp.append(max(low - row.min(), row.max() - high).item())
        assert max(beyond) < 0.01
        assert max(beyond_if_sharp) > 0.05  # what the docstring admits

    @pytest.mark.parametrize("dummy_2d", [True, False])
    def test_thick_slices_of_nnunet(self, dummy_2d: bool) -> None:
        assert inserted("redrawn", dummy_2d).thick_slices is dummy_2d


def inserted(levels: JitterLevels, dummy_2d: bool) -> Any:
    """The transform that varies the classes in nnU-Net's augmentation of a 3D patch."""
    pipeline = with_class_jitter(
        stock_transforms((8, 24, 28), dummy_2d), 1.0, {"do_dummy_2d_data_aug": dummy_2d}, levels=levels
    )
    (aside,) = [step for step in pipeline.transforms if isinstance(step, WithOwnRandomness)]
    return aside.transform.transform  # type: ignore[attr-defined]


class TestVariation:
    def test_every_image_gets_one_of_the_two(self) -> None:
        redrawn = 0
        for seed in range(300):
            torch.manual_seed(seed)
            result = ClassVariationTransform()(image=IMAGE.clone(), segmentation=LABEL.clone())["image"]
            # Each of the two goes on from the random numbers after the one that chose between them.
            expected = []
            for transform in (ClassJitterTransform(), ClassContrastTransform()):
                torch.manual_seed(seed)
                torch.rand(1)
                expected.append(transform(image=IMAGE.clone(), segmentation=LABEL.clone())["image"])
            jitter, contrast = (torch.equal(result, each) for each in expected)
            assert jitter != contrast
            redrawn += contrast
        assert 36 <= redrawn <= 84  # a fifth

    @pytest.mark.parametrize(("share", "expected"), [(0.0, ClassJitterTransform), (1.0, ClassContrastTransform)])
    def test_one_alone(self, share: float, expected: type[ClassJitterTransform]) -> None:
        for seed in range(20):
            torch.manual_seed(seed)
            result = ClassVariationTransform(share)(image=IMAGE.clone(), segmentation=LABEL.clone())["image"]
            torch.manual_seed(seed)
            torch.rand(1)
            assert torch.equal(result, expected()(image=IMAGE.clone(), segmentation=LABEL.clone())["image"])

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_what_is_no_share(self, share: float) -> None:
        with pytest.raises(ValueError, match="share of the images"):
            ClassVariationTransform(share)

    @pytest.mark.parametrize("dummy_2d", [True, False])
    def test_within_nnunet_s_augmentation(self, dummy_2d: bool) -> None:
        transform = inserted("either", dummy_2d)
        assert isinstance(transform, ClassVariationTransform)
        assert transform.redrawn == 0.2
        assert transform.jitter.thick_slices is transform.contrast.thick_slices is dummy_2d

    @pytest.mark.parametrize("masked", [[1], []])
    def test_hands_on_what_it_is_told(self, masked: list[int]) -> None:
        transform = ClassVariationTransform(thick_slices=not masked, masked=masked)
        for each in (transform.jitter, transform.contrast):
            assert (each.thick_slices, each.masked) == (not masked, masked)


class _Constant:
    """A data loader of nnU-Net's, with one image; only what varies its classes is random."""

    def __init__(self, levels: JitterLevels) -> None:
        image = torch.linspace(0, 1, 24 * 28).reshape(1, 24, 28)
        self.batch = {"image": image, "segmentation": make_label((24, 28))}
        stock = stock_transforms((24, 28), False)
        self.transform = next(
            step
            for step in with_class_jitter(stock, 1.0, FLAT, levels=levels).transforms
            if isinstance(step, WithOwnRandomness)
        )

    def set_thread_id(self, number: int) -> None:
        """Called in each process."""

    def __next__(self) -> np.ndarray:
        varied: torch.Tensor = self.transform(**{name: tensor.clone() for name, tensor in self.batch.items()})["image"]
        return varied.numpy()


@pytest.mark.parametrize("levels", ["moved", "redrawn", "either"])
class TestWithinStockAugmentation:
    @GEOMETRIES
    def test_kept_image_is_what_stock_delivers(
        self, patch_size: tuple[int, ...], loaded: tuple[int, ...], dummy_2d: bool, levels: JitterLevels
    ) -> None:
        image, label = torch.randn(2, *loaded), make_label(loaded)
        pipeline = with_class_jitter(
            stock_transforms(patch_size, dummy_2d), 1.0, {"do_dummy_2d_data_aug": dummy_2d}, levels=levels, keep=True
        )
        for seed in range(5):
            ours, stock = (
                draw(each, image, label, seed) for each in (pipeline, stock_transforms(patch_size, dummy_2d))
            )
            torch.testing.assert_close(ours["regression_target"], stock["image"])
            assert torch.equal(ours["segmentation"], stock["segmentation"])
            assert not torch.allclose(ours["image"], stock["image"])

    def test_draws_aside(self, levels: JitterLevels) -> None:
        image, label = torch.randn(1, 24, 28), make_label((24, 28))
        pipeline = with_class_jitter(stock_transforms((24, 28), False), 1.0, FLAT, levels=levels)
        torch.manual_seed(0)
        first, second = (pipeline(image=image.clone(), segmentation=label.clone())["image"] for _ in range(2))
        after = torch.rand(3)
        torch.manual_seed(0)
        stock = stock_transforms((24, 28), False)
        for _ in range(2):
            stock(image=image.clone(), segmentation=label.clone())
        assert torch.equal(torch.rand(3), after)
        assert not torch.allclose(first - image, second - image)

    def test_processes_of_the_data_loader_draw_differently(self, levels: JitterLevels) -> None:
        # nnU-Net seeds none of them but in numpy's generator; forked ones share the state of torch's.
        batches = NonDetMultiThreadedAugmenter(_Constant(levels), None, 3, num_cached=6, seeds=None)
        found = [next(batches) for _ in range(18)]
        batches._finish()
        assert len({image.tobytes() for image in found}) == 18

    def test_share(self, levels: JitterLevels) -> None:
        image, label = torch.randn(1, 24, 28), make_label((24, 28))
        pipeline = with_class_jitter(stock_transforms((24, 28), False), 0.25, FLAT, levels=levels, keep=True)
        varied = sum(
            not torch.equal(result["image"], result["regression_target"])
            for result in (draw(pipeline, image, label, seed) for seed in range(200))
        )
        assert 30 <= varied <= 70

    @pytest.mark.parametrize("noise", [False, True])
    def test_outside_of_the_mask_stays_0(self, levels: JitterLevels, noise: bool) -> None:
        stock = nnUNetTrainer.get_training_transforms(
            (24, 28), (-3, 3), None, (0, 1), False, use_mask_for_norm=[True], foreground_labels=[1, 2]
        )
        assert any(isinstance(step, MaskImageTransform) for step in stock.transforms)
        pipeline = with_class_jitter(stock, 1.0, FLAT, levels=levels, noise=noise, keep=True)
        label = make_label((24, 28))
        for seed in range(5):
            masks: list[torch.Tensor] = []
            end = pipeline.transforms[-1]
            pipeline.transforms[-1] = lambda end=end, masks=masks, **data: (
                masks.append(data["segmentation"] < 0),
                end(**data),
            )[1]
            result = draw(pipeline, torch.randn(1, 24, 28) + 5, label, seed)
            pipeline.transforms[-1] = end
            assert masks[0].any()
            assert (result["image"][masks[0]] == 0).all()
            assert (result["regression_target"][masks[0]] == 0).all()

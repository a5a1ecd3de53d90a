from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.transforms.class_jitter import ClassVariationTransform, WithOwnRandomness, with_class_jitter
from nnunetv2_sikd.transforms.noise import RelativeGaussianNoiseTransform
from tests.transforms.test_teacher_input import stock_transforms

FLAT = {"do_dummy_2d_data_aug": False}
IMAGE = 5 + torch.tensor([1.0, 100.0])[:, None, None] * torch.randn(
    2, 60, 60, generator=torch.Generator().manual_seed(1)
)
LABEL = torch.zeros(1, 60, 60, dtype=torch.int16)


def added(seed: int, image: torch.Tensor = IMAGE, label: torch.Tensor = LABEL, **settings: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    transform = RelativeGaussianNoiseTransform(**settings)
    noisy: torch.Tensor = transform(image=image.clone(), segmentation=label.clone())["image"]
    assert noisy.dtype == image.dtype
    return noisy - image


@pytest.mark.parametrize("max_sd", [1.0, 2.0])
def test_any_strength_up_to_the_largest_is_as_likely(max_sd: float) -> None:
    noise = torch.stack([added(seed, max_sd=max_sd) for seed in range(200)])
    strengths = noise.flatten(2).std(2) / (max_sd * IMAGE.flatten(1).std(1))
    torch.testing.assert_close(strengths[:, 0], strengths[:, 1], rtol=0.1, atol=1e-6)  # each channel by its scale
    assert np.quantile(strengths[:, 0], (0, 0.25, 0.5, 0.75, 1)) == pytest.approx((0, 0.25, 0.5, 0.75, 1), abs=0.09)


def test_is_white() -> None:
    noise = added(0)
    normalised = (noise - noise.mean((1, 2), keepdim=True)) / noise.std((1, 2), keepdim=True)
    for one, other in (
        (normalised[0], normalised[1]),
        (normalised[:, 1:], normalised[:, :-1]),
        (normalised[:, :, 1:], normalised[:, :, :-1]),
    ):
        assert abs((one * other).mean()) < 0.06


@pytest.mark.parametrize("masked", [[1], []])
def test_what_is_masked_does_not_count_in_its_channels(masked: list[int]) -> None:
    label = LABEL.clone()
    label[:, :, 30:] = -1
    image = IMAGE.clone()
    image[:, :, 30:] = 0
    plain, other = (added(3, image, each, masked=masked) for each in (LABEL, label))
    assert torch.equal(plain[0], other[0])
    expected = image[1, :, :30].std() / image[1].std() if masked else 1.0
    torch.testing.assert_close(other[1], plain[1] * expected, rtol=0, atol=1e-3)


def test_an_image_that_is_all_masked() -> None:
    assert added(0, label=LABEL - 1, masked=[0, 1]).isfinite().all()


@pytest.mark.parametrize("shape", [(24,), (6, 8, 10)])
def test_any_number_of_axes(shape: tuple[int, ...]) -> None:
    image = torch.randn(2, *shape)
    assert added(0, image, torch.zeros(1, *shape)).shape == image.shape
    assert not added(0, torch.zeros_like(image), torch.zeros(1, *shape)).any()


def test_a_strength_that_means_nothing() -> None:
    with pytest.raises(ValueError, match="max_sd"):
        RelativeGaussianNoiseTransform(-1.0)


def test_comes_after_the_variation_in_half_of_the_images() -> None:
    steps = with_class_jitter(stock_transforms((24, 28), False), 1.0, FLAT, levels="either", noise=True).transforms
    (varied,) = (step.transform.transform for step in steps if isinstance(step, WithOwnRandomness))
    variation, noise = varied.transforms
    assert isinstance(variation, ClassVariationTransform)
    assert isinstance(noise.transform, RelativeGaussianNoiseTransform)
    assert (noise.apply_probability, noise.transform.max_sd) == (0.5, 0.5)


def test_heeds_nnunet_s_mask() -> None:
    stock = nnUNetTrainer.get_training_transforms(
        (24, 28), (-3, 3), None, (0, 1), False, use_mask_for_norm=[False, True], foreground_labels=[1, 2]
    )
    steps = with_class_jitter(stock, 1.0, FLAT, noise=True).transforms
    (varied,) = (step.transform.transform for step in steps if isinstance(step, WithOwnRandomness))
    assert list(varied.transforms[1].transform.masked) == [1]

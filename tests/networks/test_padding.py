"""Zero padding becomes background, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad

from nnunetv2_sikd.networks.padding import pad_with_background
from nnunetv2_sikd.networks.skipless import SkiplessUNet
from tests.helpers import make_network


@pytest.mark.parametrize("dim", [2, 3])
def test_padding_takes_the_background_level(dim: int) -> None:
    image = torch.full((2, 3, *[8] * dim), -0.5)
    image[1] *= 2
    image[:, :, 3:6, 3:6] = 1.0
    image[:, :, 0, :2] = 2.0  # a class that touches the edge
    padded = pad(image, (3, 2) * dim)
    filled = pad_with_background(padded)
    inside = (slice(None), slice(None), *[slice(3, 11)] * dim)
    assert torch.equal(filled[inside], image)
    outside = torch.ones_like(padded, dtype=torch.bool)
    outside[inside] = False
    assert (filled[0][outside[0]] == -0.5).all()
    assert (filled[1][outside[1]] == -1.0).all()
    assert (padded[outside] == 0).all()


def test_padding_on_one_axis_only() -> None:
    filled = pad_with_background(pad(torch.full((1, 1, 4, 4), 0.25), (0, 0, 2, 2)))
    assert (filled == 0.25).all()


@pytest.mark.parametrize("image", [torch.rand(1, 2, 6, 6) + 0.1, torch.zeros(1, 1, 6, 6)])
def test_unpadded_and_empty_images_stay(image: torch.Tensor) -> None:
    assert torch.equal(pad_with_background(image), image)


def test_zero_inside_the_image_stays() -> None:
    image = torch.ones(1, 1, 6, 6)
    image[..., 2:4, 2:4] = 0
    padded = pad(image, (1, 1, 1, 1))
    filled = pad_with_background(padded)
    assert torch.equal(filled[..., 1:-1, 1:-1], image)
    assert (filled[..., 0, :] == 1).all()


def test_the_teachers_network_pads_in_evaluation_and_only_there() -> None:
    network = SkiplessUNet(make_network(2, deep_supervision=False))
    image = torch.full((1, 1, 24, 24), -0.5)
    image[..., 8:16, 8:16] = 1.0
    with_zeros, with_background = pad(image, (4, 4, 4, 4)), pad(image, (4, 4, 4, 4), value=-0.5)
    network.eval()
    assert torch.equal(network(with_zeros), network(with_background))
    network.train()
    assert not torch.equal(network(with_zeros), network(with_background))


def test_a_label_map_or_an_image_is_not_padded() -> None:
    network = SkiplessUNet(make_network(2, deep_supervision=False), averages=False)
    shape = torch.zeros(1, 1, 32, 32)
    shape[..., 8:16, 8:16] = 1.0  # nothing but zeros around it, which are background
    trained_on = network(shape)
    assert torch.equal(network.eval()(shape), trained_on)

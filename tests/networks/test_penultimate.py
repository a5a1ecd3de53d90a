from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.networks.penultimate import PenultimateCapture, unwrap
from tests.helpers import PATCH_SIZES, make_network


def make_captured(dim: int = 2, **options: Any) -> tuple[nn.Module, PenultimateCapture]:
    torch.manual_seed(0)
    network = make_network(dim, **options)
    return network, PenultimateCapture(network)


def make_input(dim: int = 2) -> torch.Tensor:
    return torch.randn(2, 1, *PATCH_SIZES[dim], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_captures_what_enters_the_last_segmentation_layer(dim: int, residual: bool, deep_supervision: bool) -> None:
    network, capture = make_captured(dim, residual=residual, deep_supervision=deep_supervision)
    output = network(make_input(dim))
    features = capture.take()
    assert features.shape == (2, 4, *PATCH_SIZES[dim])
    full_resolution = output[0] if deep_supervision else output
    assert torch.equal(network.decoder.seg_layers[-1](features), full_resolution)


def test_gradient_flows_through_the_captured_map_into_all_stages_below() -> None:
    network, capture = make_captured()
    network(make_input())
    capture.take().square().sum().backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {f"decoder.seg_layers.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}


def test_captures_nothing_in_evaluation() -> None:
    network, capture = make_captured()
    network.eval()
    network(make_input())
    with pytest.raises(RuntimeError, match="captured 0"):
        capture.take()


def test_taking_without_a_forward_pass_is_an_error() -> None:
    _, capture = make_captured()
    with pytest.raises(RuntimeError, match="captured 0"):
        capture.take()


def test_a_map_is_taken_once() -> None:
    network, capture = make_captured()
    network(make_input())
    capture.take()
    with pytest.raises(RuntimeError, match="captured 0"):
        capture.take()


def test_two_forward_passes_are_an_error_and_forgotten() -> None:
    network, capture = make_captured()
    network(make_input())
    network(make_input())
    with pytest.raises(RuntimeError, match="captured 2"):
        capture.take()
    network(make_input())
    assert capture.take().requires_grad


def test_clear_forgets() -> None:
    network, capture = make_captured()
    network(make_input())
    capture.clear()
    with pytest.raises(RuntimeError, match="captured 0"):
        capture.take()


def test_state_dict_stays_stock_s() -> None:
    network, _ = make_captured()
    assert list(network.state_dict()) == list(make_network(2).state_dict())


def test_network_without_unet_decoder_is_an_error() -> None:
    with pytest.raises(SIKDError, match="Conv2d has none"):
        PenultimateCapture(nn.Conv2d(1, 1, 1))


class TestCompiled:
    @pytest.fixture(autouse=True)
    def _fresh_compiler(self) -> Iterator[None]:
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def test_gradients_are_the_eager_ones(self) -> None:
        gradients = []
        for compiled in (False, True):
            torch.manual_seed(0)
            network = runnable = make_network(2)
            if compiled:
                runnable = torch.compile(network, backend="aot_eager", fullgraph=True)
            # As in nnU-Net's initialize(): the network is compiled by then, but has not been called.
            capture = PenultimateCapture(runnable)
            for _ in range(2):
                network.zero_grad()
                segmentation = sum(output.square().mean() for output in runnable(make_input()))
                (segmentation + capture.take().square().mean()).backward()
            gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)

    def test_training_and_evaluation_in_turn(self) -> None:
        network, capture = make_captured()
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            compiled.train()
            compiled(make_input())
            assert capture.take().shape[1] == 4
            compiled.eval()
            with torch.no_grad():
                compiled(make_input())
            with pytest.raises(RuntimeError, match="captured 0"):
                capture.take()

    def test_unwrap(self) -> None:
        network = make_network(2)
        assert unwrap(torch.compile(network, backend="aot_eager")) is network
        assert unwrap(network) is network

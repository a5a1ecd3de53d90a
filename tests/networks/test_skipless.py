from __future__ import annotations

from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.networks.skipless import SkiplessUNet, check_unet
from tests.helpers import PATCH_SIZES, make_network

NETWORKS = pytest.mark.parametrize(
    ("dim", "residual"), [(2, False), (2, True), (3, False), (3, True)], ids=["2d", "2d-res", "3d", "3d-res"]
)


def make_skipless(dim: int, residual: bool, *, deep_supervision: bool = True) -> SkiplessUNet:
    torch.manual_seed(0)
    return SkiplessUNet(make_network(dim, residual=residual, deep_supervision=deep_supervision, channels=2))


def make_input(dim: int) -> torch.Tensor:
    return torch.randn(2, 2, *PATCH_SIZES[dim], generator=torch.Generator().manual_seed(1))


@NETWORKS
class TestForward:
    def test_shapes_are_stock_s_with_deep_supervision(self, dim: int, residual: bool) -> None:
        stock = make_network(dim, residual=residual, channels=2)(make_input(dim))
        outputs = make_skipless(dim, residual)(make_input(dim))
        assert [output.shape for output in outputs] == [output.shape for output in stock]
        assert len(outputs) == 2

    def test_shape_is_stock_s_without(self, dim: int, residual: bool) -> None:
        output = make_skipless(dim, residual, deep_supervision=False)(make_input(dim))
        assert output.shape == (2, 3, *PATCH_SIZES[dim])

    def test_deep_supervision_is_switched_as_nnunet_does(self, dim: int, residual: bool) -> None:
        network = make_skipless(dim, residual)
        first = network(make_input(dim))[0]
        network.decoder.deep_supervision = False  # nnUNetTrainer.set_deep_supervision_enabled
        assert torch.equal(network(make_input(dim)), first)

    def test_output_is_a_function_of_the_bottleneck_alone(self, dim: int, residual: bool) -> None:
        network = make_skipless(dim, residual)
        skips = network.encoder(make_input(dim))
        expected = network.decoder(skips)
        elsewhere = [torch.randn_like(skip) for skip in skips[:-1]]
        for one, other in zip(network.decoder([*elsewhere, skips[-1]]), expected, strict=True):
            assert torch.equal(one, other)
        altered = network.decoder([*skips[:-1], skips[-1] + 1])[0]
        assert not torch.equal(altered, expected[0])

    def test_no_gradient_reaches_the_encoder_past_the_bottleneck(self, dim: int, residual: bool) -> None:
        network = make_skipless(dim, residual, deep_supervision=False)
        skips = [skip.detach().requires_grad_() for skip in network.encoder(make_input(dim))]
        network.decoder(skips).sum().backward()
        assert [skip.grad is not None for skip in skips] == [False, False, True]

    def test_every_parameter_is_trained(self, dim: int, residual: bool) -> None:
        network = make_skipless(dim, residual)
        sum(output.square().sum() for output in network(make_input(dim))).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_penultimate_enters_the_last_segmentation_layer(self, dim: int, residual: bool) -> None:
        network = make_skipless(dim, residual)
        features = network.penultimate(make_input(dim))
        assert features.shape == (2, 4, *PATCH_SIZES[dim])
        assert torch.equal(network.decoder.seg_layers[-1](features), network(make_input(dim))[0])


@NETWORKS
class TestConstruction:
    def test_first_convolutions_take_only_what_comes_from_below(self, dim: int, residual: bool) -> None:
        stock = make_network(dim, residual=residual, channels=2)
        skipless = make_skipless(dim, residual)
        for theirs, ours in zip(stock.decoder.stages, skipless.decoder.stages, strict=True):
            conv = ours.convs[0].conv
            assert theirs.convs[0].conv.in_channels == 2 * conv.in_channels
            # The block runs all_modules, not conv.
            assert ours.convs[0].all_modules[0] is conv

    def test_other_weights_are_taken_over(self, dim: int, residual: bool) -> None:
        stock = make_network(dim, residual=residual, channels=2)
        before = {name: value.clone() for name, value in stock.state_dict().items()}
        weights = SkiplessUNet(stock).state_dict()
        # nnU-Net's decoder also lists the encoder's weights.
        assert {name for name in before if not name.startswith("decoder.encoder.")} == set(weights)
        changed = {name for name in weights if weights[name].shape != before[name].shape}
        assert changed == {
            f"decoder.stages.{stage}.convs.0.{place}.weight" for stage in (0, 1) for place in ("conv", "all_modules.0")
        }
        for name in set(weights) - changed:
            if not name.startswith("decoder.stages"):
                assert torch.equal(weights[name], before[name])

    def test_new_convolutions_are_initialised_as_nnunet_s(self, dim: int, residual: bool) -> None:
        for stage in make_skipless(dim, residual).decoder.stages:
            conv = stage.convs[0].conv
            # Kaiming normal with slope 0.01: PyTorch's own would be uniform, with a non-zero bias.
            expected = (2 / (1 + 1e-4) / (conv.in_channels * 3**dim)) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.25)
            assert conv.weight.abs().max() > 1.8 * expected
            assert (conv.bias == 0).all()

    def test_weights_load_into_a_network_without_deep_supervision(self, dim: int, residual: bool) -> None:
        trained = make_skipless(dim, residual).eval()
        other = make_skipless(dim, residual, deep_supervision=False).eval()
        nn.init.zeros_(other.decoder.seg_layers[-1].weight)
        other.load_state_dict(trained.state_dict())
        assert torch.equal(other(make_input(dim)), trained(make_input(dim))[0])


@NETWORKS
class TestDeepSkips:
    def make(self, dim: int, residual: bool) -> SkiplessUNet:
        torch.manual_seed(0)
        return SkiplessUNet(make_network(dim, residual=residual, channels=2), deep_skips=True)

    def test_all_but_the_skip_of_full_resolution_reach_the_output(self, dim: int, residual: bool) -> None:
        network = self.make(dim, residual)
        skips = [skip.detach().requires_grad_() for skip in network.encoder(make_input(dim))]
        network.decoder(skips)[0].sum().backward()
        assert [skip.grad is not None for skip in skips] == [False, True, True]

    def test_stages_with_skips_are_nnunet_s(self, dim: int, residual: bool) -> None:
        stock = make_network(dim, residual=residual, channels=2)
        skips = stock.encoder(make_input(dim))
        expected: list[torch.Tensor] = []
        stock.decoder.stages[0].register_forward_hook(lambda *call: expected.append(call[2]))
        stock.decoder(skips)
        ours = SkiplessUNet(stock, deep_skips=True).decoder.features(skips)
        assert torch.equal(ours[0], expected[0])
        assert ours[1].shape == (2, 4, *PATCH_SIZES[dim])

    def test_every_parameter_is_trained(self, dim: int, residual: bool) -> None:
        network = self.make(dim, residual)
        sum(output.square().sum() for output in network(make_input(dim))).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


def test_nnunet_switches_deep_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = object.__new__(nnUNetTrainer)
    trainer.network, trainer.is_ddp = make_skipless(2, False), False
    trainer.set_deep_supervision_enabled(False)
    assert isinstance(trainer.network(make_input(2)), torch.Tensor)


class TestOtherNetworks:
    def test_network_without_a_decoder(self) -> None:
        with pytest.raises(SIKDError, match=r"Sequential has none: choose plans"):
            SkiplessUNet(nn.Sequential(nn.Conv2d(1, 2, 1)))

    def test_network_with_another_decoder(self) -> None:
        network = nn.Module()
        network.decoder = nn.Linear(1, 1)
        with pytest.raises(SIKDError, match="PlainConvUNet or ResidualEncoderUNet"):
            check_unet(network)

    def test_residual_decoder(self) -> None:
        network = ResidualUNet(1, 2, (2, 4), nn.Conv2d, 3, (1, 2), 1, 2, 1, norm_op=nn.InstanceNorm2d, nonlin=nn.ReLU)
        with pytest.raises(SIKDError, match="ResidualUNet has none"):
            SkiplessUNet(network)

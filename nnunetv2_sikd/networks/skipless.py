"""A U-Net whose skip connections are removed, all or the finest: the teacher's network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.networks.padding import pad_with_background


class SkiplessDecoder(nn.Module):
    """The decoder of an nnU-Net network, fed by the bottleneck, and by the deep skip connections where they are kept.

    Takes over the stages of a freshly built decoder. Where a skip is removed, the stage's first convolution gets half
    its input channels: those that came up from below; the skip's half is gone.

    Args:
        decoder: A decoder not used elsewhere; its stages are altered in place.
        initialize: Weight initialisation of the network, for the new convolutions.
        deep_skips: Keep all skip connections but that of full resolution.
    """

    def __init__(
        self, decoder: UNetDecoder, initialize: Callable[[nn.Module], None], *, deep_skips: bool = False
    ) -> None:
        super().__init__()
        self.kept = len(decoder.stages) - 1 if deep_skips else 0
        self.deep_supervision: bool = decoder.deep_supervision
        self.transpconvs: nn.ModuleList = decoder.transpconvs
        self.stages: nn.ModuleList = decoder.stages
        self.seg_layers: nn.ModuleList = decoder.seg_layers
        for stage, transpconv in list(zip(self.stages, self.transpconvs, strict=True))[self.kept :]:
            block = stage.convs[0]
            conv = _with_input_channels(block.conv, transpconv.out_channels)
            initialize(conv)
            block.conv = block.all_modules[0] = conv
            block.input_channels = conv.in_channels

    def features(self, skips: list[torch.Tensor]) -> list[torch.Tensor]:
        """Feature maps of all stages, full resolution last.

        Args:
            skips: Output of the encoder; the bottleneck is the last.

        Shape:
            - skips: ``(B, C, *spatial)`` of each of the encoder's stages
            - result: one ``(B, features of the stage, *spatial of the stage)`` a stage
        """
        maps = []
        x = skips[-1]
        for number, (transpconv, stage) in enumerate(zip(self.transpconvs, self.stages, strict=True)):
            x = transpconv(x)
            x = stage(torch.cat((x, skips[-(number + 2)]), 1) if number < self.kept else x)
            maps.append(x)
        return maps

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Segmentation logits, full resolution first where deep supervision is on.

        Args:
            skips: Output of the encoder, of which only the last and those that are kept are used.
        """
        maps = self.features(skips)
        if not self.deep_supervision:
            return self.seg_layers[-1](maps[-1])
        return [layer(x) for layer, x in zip(self.seg_layers, maps, strict=True)][::-1]


class SkiplessUNet(nn.Module):
    """Encoder and skipless decoder of an nnU-Net network.

    With skip connections the teacher would solve its easy task in the first layers and learn neither shape
    nor intensity in the deep ones, the SIKD paper argues. But all that it knows then passes the bottleneck, a few
    pixels wide, and thin structures are lost. With the deep skips kept, it has to look at no less than half
    resolution still.

    Args:
        network: A freshly built ``PlainConvUNet`` or ``ResidualEncoderUNet`` (2D or 3D); it is taken apart.
        deep_skips: Keep all skip connections but that of full resolution.
        averages: Whether the images are class averages. In evaluation mode, zero padding around those is treated as
            background (see ``networks/padding.py``); in a label map zeros are background anyway, and images are padded
            with zeros in training too.

    Raises:
        SIKDError: The network has no decoder whose skips could be removed.
    """

    def __init__(self, network: Any, *, deep_skips: bool = False, averages: bool = True) -> None:
        super().__init__()
        check_unet(network)
        self.averages = averages
        self.encoder: nn.Module = network.encoder
        self.decoder = SkiplessDecoder(network.decoder, network.initialize, deep_skips=deep_skips)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Segmentation logits ``(B, heads, *spatial)``, or a list of them under deep supervision."""
        padded = self.averages and not self.training
        return self.decoder(self.encoder(pad_with_background(x) if padded else x))

    def penultimate(self, x: torch.Tensor) -> torch.Tensor:
        """The feature map that enters the last 1×1 convolution; no segmentation head runs.

        Shape:
            - x: ``(B, input channels, *spatial)``
            - result: ``(B, features of the first stage, *spatial)``
        """
        return self.decoder.features(self.encoder(x))[-1]


def check_unet(network: Any) -> None:
    """Raise a clear error unless ``network`` has nnU-Net's U-Net decoder.

    Raises:
        SIKDError: It has none (Primus, say).
    """
    if not isinstance(getattr(network, "decoder", None), UNetDecoder):
        raise SIKDError(
            f"SIKD needs the decoder of a PlainConvUNet or ResidualEncoderUNet, and {type(network).__name__} "
            "has none: choose plans with one of these (nnUNetPlans, nnUNetResEncUNetMPlans, ...) with -p"
        )


def _with_input_channels(conv: Any, in_channels: int) -> nn.Module:
    """A new convolution like ``conv`` for another number of input channels."""
    return type(conv)(
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        bias=conv.bias is not None,
    )

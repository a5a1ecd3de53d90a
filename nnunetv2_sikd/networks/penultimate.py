"""Capture of the penultimate feature map of a training network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_sikd.networks.skipless import check_unet


class PenultimateCapture:
    """Remembers what enters the last segmentation layer in training mode.

    The hook must be there before a compiled network is first called: one registered later is silently left
    out of the graph. Hence :meth:`take` insists on exactly one map per step.

    Args:
        network: The student's network, wrapped (compiled, DDP) or not.
    """

    def __init__(self, network: Any) -> None:
        network = unwrap(network)
        check_unet(network)
        self._maps: list[torch.Tensor] = []
        network.decoder.seg_layers[-1].register_forward_pre_hook(self._remember)

    def _remember(self, layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        # In evaluation nobody takes the maps, and keeping them would hold their memory.
        if layer.training:
            self._maps.append(inputs[0])

    def take(self) -> torch.Tensor:
        """Return the map captured since the last call, and forget it.

        Shape:
            - result: ``(B, features, *spatial)`` at full resolution

        Raises:
            RuntimeError: Not exactly one map was captured.
        """
        maps = list(self._maps)
        self._maps.clear()
        if len(maps) != 1:
            raise RuntimeError(
                f"expected one penultimate feature map in this training step, captured {len(maps)}: "
                "the distillation loss would be wrong"
            )
        return maps[0]

    def clear(self) -> None:
        """Forget what was captured."""
        self._maps.clear()


def unwrap(network: Any) -> Any:
    """The bare network inside DDP and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    if isinstance(network, OptimizedModule):
        network = network._orig_mod
    return network

"""Losses that are NaN or infinite: the training says which loss and which cases, and stops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.errors import SIKDError


class FiniteLoss(nnUNetTrainer):
    """nnU-Net's trainer, which stops before a broken network takes the place of its last good checkpoint.

    Without mixed precision a step with such a loss has ruined the weights. With it the gradient scaler skips the
    step, so a single overflow is only logged, as stock nnU-Net survives it; several in a row do not pass by
    themselves. In validation such a loss stops the training where the weights are broken (by an infinite gradient
    of a finite loss in the epoch's last step), and is logged otherwise.

    Raises:
        SIKDError: From ``train_step()`` and ``validation_step()``, with the loss, the cases of the batch and those
            whose image is not finite.
    """

    overflows_tolerated: ClassVar[int] = 4
    """Steps in a row that the gradient scaler may skip for a loss that is not finite."""

    _overflows: int = 0

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's training step; its loss has to be finite."""
        result = super().train_step(batch)
        # nnU-Net brings this number to the CPU in any case: looking at it costs the GPU no wait.
        if np.isfinite(result["loss"]).all():
            self._overflows = 0
            return result
        self._overflows += 1
        if self.grad_scaler is None or self._overflows > self.overflows_tolerated:
            self._stop("training", result, batch)
        self.print_to_log_file(f"{self._told('training', result, batch)}; mixed precision skips this step")
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step; its loss has to be finite, or at least the weights."""
        result = super().validation_step(batch)
        if not np.isfinite(result["loss"]).all():
            if not all(torch.isfinite(weights).all() for weights in self.network.state_dict().values()):
                self._stop("validation", result, batch)
            self.print_to_log_file(self._told("validation", result, batch))
        return result

    def loss_parts(self, result: dict[str, Any]) -> dict[str, float]:
        """The losses of the last step by name.

        Args:
            result: What nnU-Net's step returned.
        """
        return {"loss": float(result["loss"])}

    def _stop(self, phase: str, result: dict[str, Any], batch: dict[str, Any]) -> None:
        raise SIKDError(
            f"{self.output_folder}: {self._told(phase, result, batch)}; the training stops before such weights are "
            "saved: check the images and labels of these cases and preprocess the data set again if they change, "
            "then the same command with --c continues from the last checkpoint"
        )

    def _told(self, phase: str, result: dict[str, Any], batch: dict[str, Any]) -> str:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in self.loss_parts(result).items())
        cases = [str(case) for case in batch.get("keys", ())]
        # A label is finite by its type.
        broken = [case for case, image in zip(cases, batch["data"], strict=False) if not torch.isfinite(image).all()]
        told = f"{parts} in {phase}, epoch {self.current_epoch}, for the batch of {', '.join(dict.fromkeys(cases))}"
        return f"{told} (NaN or infinite pixels in {', '.join(dict.fromkeys(broken))})" if broken else told

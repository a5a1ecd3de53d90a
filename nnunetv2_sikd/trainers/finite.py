"""Losses that are NaN or infinite: the training says which loss and which cases, and stops."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.ranks import first_told, in_any_rank


class FiniteLoss(nnUNetTrainer):
    """nnU-Net's trainer, which stops before a broken network takes the place of its last good checkpoint.

    Without mixed precision a step with such a loss has ruined the weights. With it the gradient scaler skips the
    step, so a single overflow is only logged, as stock nnU-Net survives it; several in a row do not pass by
    themselves. In validation such a loss stops the training where the weights are broken (by an infinite gradient
    of a finite loss in the epoch's last step), and is logged otherwise. On several GPUs all processes do the same,
    whichever of them has the loss.

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
        told = self._told_of_broken_loss("training", result, batch)
        if told is None:
            self._overflows = 0
            return result
        self._overflows += 1
        if self.grad_scaler is None or self._overflows > self.overflows_tolerated:
            self._stop(told)
        self.print_to_log_file(f"{told}; mixed precision skips this step")
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's validation step; its loss has to be finite, or at least the weights."""
        result = super().validation_step(batch)
        told = self._told_of_broken_loss("validation", result, batch)
        if told is not None:
            if not all(torch.isfinite(weights).all() for weights in self.network.state_dict().values()):
                self._stop(told)
            self.print_to_log_file(told)
        return result

    def loss_parts(self, result: dict[str, Any]) -> dict[str, float]:
        """The losses of the last step by name.

        Args:
            result: What nnU-Net's step returned.
        """
        return {"loss": float(result["loss"])}

    def _told_of_broken_loss(self, phase: str, result: dict[str, Any], batch: dict[str, Any]) -> str | None:
        """What is to be told where the loss is not finite in one of the processes."""
        # nnU-Net brings this number to the CPU in any case: looking at it costs the GPU no wait.
        broken = not np.isfinite(result["loss"]).all()
        if not in_any_rank(broken, self.device):
            return None
        return first_told(self._told(phase, result, batch) if broken else None)

    def stop_loaders(self) -> None:
        """End the processes that load data, before an error: their own complaints would come after it."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if isinstance(loader, NonDetMultiThreadedAugmenter | MultiThreadedAugmenter):
                loader._finish()  # as nnU-Net ends them

    def _stop(self, told: str) -> None:
        self.stop_loaders()
        raise SIKDError(
            f"{self.output_folder}: {told}; the training stops before such weights are "
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

"""What a training cost, in ``training_cost.json``."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from time import time
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import distributed as dist

from nnunetv2_sikd.files import write_json

FILE_NAME = "training_cost.json"


class CostRecord(nnUNetTrainer):
    """nnU-Net's trainer, which writes time and peak memory of its training into ``training_cost.json``.

    The file is brought up to date after each epoch, so what a killed session cost is not lost. A continued
    training adds to it; one that begins anew starts another.
    """

    _cost_before: dict[str, Any]
    _session_start: float

    def on_train_start(self) -> None:
        """Start as nnU-Net does, and the clock with it."""
        self._session_start = time()
        file = Path(self.output_folder) / FILE_NAME
        self._cost_before = self._earlier(file) if self.current_epoch > 0 else {}
        super().on_train_start()

    def _earlier(self, file: Path) -> dict[str, Any]:
        """What earlier sessions cost; nothing where that is not known, which is no reason not to train."""
        try:
            earlier = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if file.exists():
                self.print_to_log_file(f"{file}: cannot be read ({error!a}), cost of earlier sessions is left out")
            return {}
        return earlier if isinstance(earlier, dict) else {}

    def on_epoch_end(self) -> None:
        """End the epoch as nnU-Net does, then record what was spent up to here."""
        super().on_epoch_end()
        self._write_cost()

    def on_train_end(self) -> None:
        """End the training as nnU-Net does; the final validation is not counted."""
        super().on_train_end()
        self._write_cost()

    def _write_cost(self) -> None:
        if self.local_rank != 0:
            return
        write_json(Path(self.output_folder) / FILE_NAME, self._cost())

    def _cost(self) -> dict[str, Any]:
        before = self._cost_before
        starts, ends = (self.logger.get_value(f"epoch_{which}_timestamps", step=None) for which in ("start", "end"))
        seconds = [end - start for start, end in zip(starts, ends, strict=False)]
        peaks, earlier = peak_memory_mib(self.device), before.get("peak_memory_mib", {})
        return {
            "trainer": type(self).__name__,
            "device": device_name(self.device),
            "torch": torch.__version__,
            "training_processes": dist.get_world_size() if self.is_ddp else 1,
            "augmentation_processes": get_allowed_n_proc_DA(),
            "cpu_threads": torch.get_num_threads(),
            "sessions": before.get("sessions", 0) + 1,
            "epochs": len(seconds),
            "iterations_per_epoch": self.num_iterations_per_epoch,
            "seconds_per_epoch": [round(value, 3) for value in seconds],
            # Of the epochs in this model; the other one also counts start-up and epochs that a kill undid.
            "total_seconds": round(sum(seconds), 3),
            "seconds_of_all_sessions": round(
                before.get("seconds_of_all_sessions", 0) + time() - self._session_start, 3
            ),
            "peak_memory_mib": {key: max(value, earlier.get(key, 0)) for key, value in peaks.items()},
        }


def peak_memory_mib(device: torch.device) -> dict[str, float]:
    """Peak memory of this process so far, in MiB: resident, and on a GPU what torch allocated and reserved.

    Args:
        device: Where the training runs.
    """
    peaks = {"resident": round(_peak_resident_mib(), 1)}
    if device.type == "cuda":
        peaks["cuda_allocated"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
        peaks["cuda_reserved"] = round(torch.cuda.max_memory_reserved(device) / 2**20, 1)
    return peaks


def device_name(device: torch.device) -> str:
    """Name of the GPU or the processor.

    Args:
        device: Where the training runs.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _line_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()


def _peak_resident_mib() -> float:
    # On Linux ru_maxrss starts at what the parent process had.
    if peak := _line_of("/proc/self/status", "VmHWM"):
        return int(peak.split()[0]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _line_of(file: str, key: str) -> str | None:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)

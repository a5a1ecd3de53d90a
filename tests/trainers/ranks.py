"""Two processes that train together on the CPU, through nnU-Net's own code for several GPUs."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

WORLD_SIZE = 2
_SECONDS = 300  # after which a dead-lock is one; starting takes long on a busy machine
_HANDED_ON = ("nnUNet_", "OMP_")

run_ddp = run_training.run_ddp  # nnU-Net's own


class Ranks:
    """Two processes that stay, since what takes long is importing torch; each call makes a new process group."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, context, initializer=use_cpu) for _ in range(WORLD_SIZE)]
        self._calls = 0

    def run(self, function: Callable[..., Any], *args: Any, folder: Path) -> list[Any]:
        """What ``function(rank, *args)`` returns in each rank; an exception where it raises one.

        Args:
            function: Of a module, run within a process group.
            args: Whatever can be pickled.
            folder: Where the ranks meet.
        """
        self._calls += 1
        environment = {key: value for key, value in os.environ.items() if key.startswith(_HANDED_ON)}
        group = f"file://{folder}/group_{self._calls}"
        calls = [
            pool.submit(_in_group, group, rank, environment, function, args) for rank, pool in enumerate(self._pools)
        ]
        _, hanging = wait(calls, timeout=_SECONDS)
        if hanging:
            self.close()
            raise TimeoutError(f"ranks {[rank for rank, call in enumerate(calls) if call in hanging]} wait for ever")
        for error in filter(None, (call.exception() for call in calls)):
            traceback.print_exception(error)
        return [call.exception() or call.result() for call in calls]

    def close(self) -> None:
        """End the processes, whatever they do."""
        for pool in self._pools:
            for process in (pool._processes or {}).values():
                process.terminate()
            pool.shutdown()


def use_cpu() -> None:
    """Replace what is for CUDA alone in nnU-Net's distributed training; all else stays."""
    torch.set_num_threads(1)
    torch.cuda.set_device = lambda device: None
    run_training.setup_ddp = lambda rank, size: dist.init_process_group("gloo", rank=rank, world_size=size)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    make = stock.nnUNetTrainer.__init__

    @wraps(make)  # nnU-Net reads the signature
    def make_on_cpu(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self.device, self.grad_scaler = torch.device("cpu"), None

    stock.nnUNetTrainer.__init__ = make_on_cpu


def run_ddp_on_cpu(rank: int, *args: Any) -> None:
    """nnU-Net's ``run_ddp``, in a process of ``torch.multiprocessing.spawn``."""
    use_cpu()
    run_ddp(rank, *args)


@contextmanager
def within_group() -> Iterator[None]:
    """Lets nnU-Net's ``run_ddp`` use the group that is there."""
    setup, cleanup = run_training.setup_ddp, run_training.cleanup_ddp
    run_training.setup_ddp = lambda rank, world_size: None
    run_training.cleanup_ddp = lambda: None
    try:
        yield
    finally:
        run_training.setup_ddp, run_training.cleanup_ddp = setup, cleanup


def _in_group(group: str, rank: int, environment: dict[str, str], function: Callable[..., Any], args: Any) -> Any:
    for key in [key for key in os.environ if key.startswith(_HANDED_ON)]:
        del os.environ[key]
    os.environ.update(environment)
    dist.init_process_group(
        "gloo", init_method=group, rank=rank, world_size=WORLD_SIZE, timeout=timedelta(seconds=_SECONDS)
    )
    try:
        with within_group():
            return function(rank, *args)
    finally:
        dist.destroy_process_group()

"""Trainings that a seed repeats, and that end alike whether or not they were interrupted."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers.checkpoints import WholeCheckpoints
from nnunetv2_sikd.transforms.class_jitter import WithOwnRandomness

_TRAINING, _VALIDATION, _NETWORK, _EPOCH = range(4)  # what a stream of random numbers is for
_PROCESSES = "nnUNet_n_proc_DA"


class Seeded(WholeCheckpoints):
    """nnU-Net's training with the initial weights and every batch decided by a seed.

    Batch k of a training has a seed of its own, so it is the same whichever process makes it, and a training
    continued with ``--c`` goes on with the batches that it would have seen. On a CPU the weights repeat bit for
    bit (same machine, versions and number of threads), with any ``nnUNet_n_proc_DA``. On a GPU the batches do,
    and the arithmetic as far as the device repeats it. Trainers of one seed see the same patches under the same
    augmentation, and networks of one architecture start from the same weights.
    """

    seed: ClassVar[int] = 0

    def initialize(self) -> None:
        """Build everything, as nnU-Net does, with weights that follow from the seed.

        Raises:
            SIKDError: The configuration is the second stage of a cascade.
        """
        if self.is_cascaded:
            # Its transforms shuffle a list in place: what a batch draws depends on those made before.
            raise SIKDError(
                f"{self.configuration_name} is the second stage of a cascade, whose augmentation a seed does not "
                "repeat: choose a trainer without a seed, or another configuration"
            )
        seed_generators(self.seed, _NETWORK, 0, 0)
        super().initialize()

    def on_train_epoch_start(self) -> None:
        """Start an epoch as nnU-Net does; what is random within the network (dropout) follows from the seed."""
        seed_generators(self.seed, _EPOCH, self.local_rank, self.current_epoch)
        super().on_train_epoch_start()

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's data loaders, drawing each batch from its own seed."""
        processes = get_allowed_n_proc_DA()
        with _no_processes():
            training, validation = (augmenter.data_loader for augmenter in super().get_dataloaders())
        return (
            self._seeded(training, _TRAINING, self.num_iterations_per_epoch, processes, max(6, processes // 2)),
            self._seeded(
                validation,
                _VALIDATION,
                self.num_val_iterations_per_epoch,
                # nnU-Net's numbers, here and above: half as many for validation
                max(1, processes // 2) if processes else 0,
                max(3, processes // 4),
            ),
        )

    def _seeded(self, loader: Any, stream: int, iterations: int, processes: int, cached: int) -> Any:
        make_repeatable(loader.transforms)
        first = self.current_epoch * iterations
        batches = SeededBatches(loader, (self.seed, stream, self.local_rank), first, max(1, processes))
        if processes == 0:
            return SingleThreadedAugmenter(batches, None)
        augmenter = MultiThreadedAugmenter(
            batches,
            None,
            processes,
            num_cached_per_queue=max(2, cached // processes),
            pin_memory=self.device.type == "cuda",
            wait_time=0.002,
        )
        augmenter.restart()  # processes start before the network's threads do, as in nnU-Net
        return augmenter


class SeededBatches:
    """The batches of a loader, each drawn from its own seed; other random numbers are left alone.

    Args:
        loader: nnU-Net's data loader.
        entropy: Seed, stream and rank.
        first: Index of the first batch.
        processes: How many processes share the batches; the one with number w makes w, w + n, w + 2n, …
    """

    def __init__(self, loader: Any, entropy: tuple[int, int, int], first: int = 0, processes: int = 1) -> None:
        self.loader = loader
        self.entropy = entropy
        self.index = first
        self.processes = processes

    def set_thread_id(self, number: int) -> None:
        """Become one of several processes (batchgenerators calls this in each)."""
        torch.set_num_threads(1)  # as nnU-Net's augmentation processes; a forked one would hang with more
        self.index += number

    def __iter__(self) -> SeededBatches:
        return self

    def __next__(self) -> dict[str, Any]:
        with _own_generators():
            seed_generators(*self.entropy, self.index, cpu_only=True)
            batch = next(self.loader)
        self.index += self.processes
        return batch


def seed_generators(*entropy: int, cpu_only: bool = False) -> None:
    """Seed Python's, numpy's and torch's global generators.

    Args:
        entropy: Numbers that together name a stream.
        cpu_only: Leave the GPUs' generators alone; a forked process could not reach them.
    """
    words = np.random.SeedSequence(entropy).generate_state(8)
    np.random.seed(words)
    random.seed(words.tobytes())
    (torch.default_generator if cpu_only else torch).manual_seed(int(words[:2].view(np.uint64)[0]) >> 1)


def make_repeatable(transform: Any) -> None:
    """Have transforms do the same wherever their generators are seeded alike.

    None chooses between equivalent algorithms by their speed, which differ in rounding.
    """
    if isinstance(transform, list | tuple):
        for part in transform:
            make_repeatable(part)
    elif isinstance(transform, BasicTransform):
        if hasattr(transform, "benchmark"):
            transform.benchmark = False
        if isinstance(transform, WithOwnRandomness):
            transform.seeded = True
        make_repeatable(list(vars(transform).values()))


@contextmanager
def _own_generators() -> Iterator[None]:
    states = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def _no_processes() -> Iterator[None]:
    asked = os.environ.get(_PROCESSES)
    os.environ[_PROCESSES] = "0"
    try:
        yield
    finally:
        os.environ.pop(_PROCESSES)
        if asked is not None:
            os.environ[_PROCESSES] = asked

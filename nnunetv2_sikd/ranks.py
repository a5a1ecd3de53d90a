"""What the processes (ranks) of a training on several GPUs settle together.

A rank that stopped alone would leave the others waiting for it in the next step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed as dist

from nnunetv2_sikd.errors import SIKDError


def in_any_rank(holds: bool, device: torch.device) -> bool:
    """Whether something holds in any rank; in a training of one process, whether it holds there.

    Args:
        holds: Whether it does in this one.
        device: Where this rank trains; NCCL carries nothing else.
    """
    if not _several():
        return holds
    flag = torch.tensor(float(holds), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def first_told(message: str | None) -> str | None:
    """The message of the first rank that has one; None where no rank has. Every rank must call it.

    Args:
        message: That of this rank.
    """
    if not _several():
        return message
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    return next((told for told in messages if told is not None), None)


@contextmanager
def refused_together() -> Iterator[None]:
    """Raise in every rank what one of them refuses.

    Raises:
        SIKDError: This rank's own, or that of the first rank that raised one.
    """
    refusal = None
    try:
        yield
    except SIKDError as error:
        refusal = error
    told = first_told(None if refusal is None else str(refusal))
    if told is not None:
        raise refusal or SIKDError(told)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()

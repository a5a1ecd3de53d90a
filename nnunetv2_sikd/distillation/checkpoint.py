"""Reading nnU-Net checkpoints without executing what they hold."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_sikd.errors import SIKDError

# What a stock checkpoint holds beyond tensors and plain containers: numpy numbers in its logs.
_SAFE_GLOBALS: list[Any] = [
    np.dtype,
    *((type(np.dtype(name))) for name in ("float16", "float32", "float64", "int32", "int64", "bool")),
    # numpy 2 moved the function; checkpoints of either name must load under either version.
    (np.array(0.0).dtype.type(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.array(0.0).dtype.type(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load a checkpoint of nnU-Net's onto the CPU with ``weights_only=True``.

    Args:
        file: ``checkpoint_*.pth``.

    Returns:
        The checkpoint.

    Raises:
        SIKDError: Not there, damaged, no checkpoint of nnU-Net, or holding objects that loading would
            execute.
    """
    if not file.is_file():
        raise SIKDError(f"{file}: not there")
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SIKDError(
            f"{file}: damaged, or no checkpoint that loads safely ({reason[:200]}); copy it again or train again"
        ) from error
    needed = {"network_weights", "init_args", "trainer_name"}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise SIKDError(f"{file}: is no nnU-Net checkpoint (network_weights, init_args, trainer_name missing)")
    return checkpoint


def weights_hash(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 of a network's weights: names, types, shapes and values.

    Of the weights and not the file, since nnU-Net rewrites the file of a finished training on ``--c``.

    Args:
        weights: State dict, tensors of any shape on the CPU.
    """
    digest = sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

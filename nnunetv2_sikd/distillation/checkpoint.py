"""Reading nnU-Net checkpoints without executing what they hold."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunetv2_sikd.errors import SIKDError

# Thousand epochs log some twenty thousand values; optimizer and weights hold a few thousand tensors.
_MOST_VALUES = 1_000_000


class _NumberType:
    """In place of ``numpy.dtype``, whose own unpickling can be made to read any memory: plain numbers only."""

    def __init__(self, name: str, *_: object) -> None:
        self.type = np.dtype({"f2": "f2", "f4": "f4", "f8": "f8", "i4": "i4", "i8": "i8", "b1": "?"}[name])

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] == ">":
            self.type = self.type.newbyteorder(">")


def _number(number_type: _NumberType, content: bytes) -> Any:
    """In place of numpy's function that makes a number from its bytes."""
    return np.frombuffer(content, number_type.type, count=1)[0]


# What a stock checkpoint holds beyond tensors and plain containers: numpy numbers in its logs.
_SAFE_GLOBALS: list[Any] = [
    (_NumberType, "numpy.dtype"),
    # numpy 2 moved the function; checkpoints of either name must load under either version.
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
]


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Load a checkpoint of nnU-Net's onto the CPU with ``weights_only=True``.

    Args:
        file: ``checkpoint_*.pth``.

    Returns:
        The checkpoint: ``network_weights`` are tensors by name, ``init_args`` hold dictionaries ``plans`` and
        ``dataset_json`` and, of this package's trainers, ``sikd``; ``trainer_name`` is text.

    Raises:
        SIKDError: Not there, damaged, no checkpoint of nnU-Net, holding objects that loading would execute, or larger
            in memory than in the file.
    """
    if not file.is_file():
        raise SIKDError(f"{file}: not there")
    try:
        _check_archive(file)
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        _check_values(checkpoint)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SIKDError(
            f"{file}: damaged, or no checkpoint that loads safely ({reason[:200]}); copy it again or train again"
        ) from error
    needed = {"network_weights", "init_args", "trainer_name"}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise SIKDError(f"{file}: is no nnU-Net checkpoint (network_weights, init_args, trainer_name missing)")
    wrong = _wrong_part(checkpoint)
    if wrong:
        raise SIKDError(f"{file}: is no nnU-Net checkpoint ({wrong} is not what nnU-Net writes)")
    return checkpoint


def _check_archive(file: Path) -> None:
    """Refuse what grows when it is read: ``torch.save`` compresses nothing, and writes each part once.

    Raises:
        ValueError: It is no archive of ``torch.save``, or such a one.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("no archive as torch.save writes it")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("compressed, which torch.save does not do")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise ValueError("declares more content than the file has")


def _check_values(checkpoint: Any) -> None:
    """Refuse few bytes that stand for many values: lists of lists of one list, tensors that repeat one number.

    Raises:
        ValueError: More than a checkpoint can have, or a tensor without memory of its own.
    """
    for value in _values(checkpoint):
        if isinstance(value, torch.Tensor) and (
            value.layout != torch.strided
            or value.device.type != "cpu"
            or value.is_quantized
            or value.numel() * value.element_size() > value.untyped_storage().nbytes()
        ):
            raise ValueError("holds a tensor without memory of its own")


def _values(content: Any) -> Iterator[Any]:
    """Everything in nested containers, as often as it is found there.

    Raises:
        ValueError: That is more than a checkpoint can have.
    """
    waiting, count = [content], 0
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, (dict, list, tuple, set, frozenset)):
            count += len(value)
            if count > _MOST_VALUES:
                raise ValueError("holds more values than a checkpoint can")
            waiting += value
            waiting += value.values() if isinstance(value, dict) else ()


def _wrong_part(checkpoint: dict[str, Any]) -> str | None:
    """The first part that is of another kind than nnU-Net and this package write."""
    weights, arguments = checkpoint["network_weights"], checkpoint["init_args"]
    if not isinstance(checkpoint["trainer_name"], str):
        return "trainer_name"
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, torch.Tensor) for name, weight in weights.items()
    ):
        return "network_weights"
    if not isinstance(arguments, dict):
        return "init_args"
    parts = ("plans", "dataset_json", "sikd")
    return next((f"init_args[{key!r}]" for key in parts if not isinstance(arguments.get(key, {}), dict)), None)


def number_of_parameters(weights: dict[str, torch.Tensor]) -> int:
    """Number of a network's weights, each counted once.

    Args:
        weights: State dict as :func:`read_checkpoint` returns it. Under other names, nnU-Net's decoder holds the
            encoder again, and a block its convolution.
    """
    sizes = {weight.data_ptr(): weight.numel() for weight in weights.values()}
    return sum(sizes.values())


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

"""Files of preprocessed cases, opened without executing what they hold: they may be anybody's."""

from __future__ import annotations

import pickle
import pickletools
from io import BytesIO
from pathlib import Path
from typing import Any

import blosc2

# Arrays that blosc2 computes when they are opened, some from source code in the file; from 4.14 on it refuses them
# itself. The names stand in the header as they are.
_ACTIVE = (b"LazyArray", b"proxy-source", b"b2o")
_MAGIC = b"b2frame\0"
_LARGEST_HEADER = 2**16

# What nnU-Net's properties hold beyond plain containers and numbers: where each label lies, as arrays of numpy.
_NUMPY = {
    *(("numpy", name) for name in ("ndarray", "dtype")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("_codecs", "encode"),  # bytes, in old pickles
    ("__builtin__", "bytes"),
}


def open_array(file: Path) -> blosc2.NDArray:
    """Open a ``.b2nd`` file for reading.

    Raises:
        ValueError: It is no array, or one that opening would compute.
        RuntimeError: blosc2 cannot read it.
        OSError: It cannot be read.
    """
    with open(file, "rb") as stream:
        header = stream.read(_LARGEST_HEADER)
    if header[2:10] != _MAGIC:
        raise ValueError("no array of blosc2")
    header = header[: int.from_bytes(header[11:15], "big")]
    if any(name in header for name in _ACTIVE):
        raise ValueError("an array that computes itself, which nnU-Net does not write")
    # Memory maps do not work on Windows (nnU-Net issue 2723), and a plain read suffices everywhere.
    array = blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1})
    if not isinstance(array, blosc2.NDArray):
        raise ValueError("no array of blosc2")
    return array


def check_properties(file: Path) -> None:
    """Check that a ``.pkl`` is complete and holds nothing that loading it, as nnU-Net will, would execute.

    Raises:
        ValueError: It is damaged, or names functions or classes.
        OSError: It cannot be read.
    """
    content = file.read_bytes()
    try:
        for operation, argument, _ in pickletools.genops(content):
            # A memo of its own size for each byte would fill the memory.
            if "PUT" in operation.name and isinstance(argument, int) and argument > len(content):
                raise ValueError("damaged")
        _Inert(BytesIO(content)).load()
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


class _Inert(pickle.Unpickler):
    """Loads plain values, and stand-ins that do nothing for numpy's functions and classes; knows no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise ValueError(f"would execute {module}.{name}, which nnU-Net does not write")
        return _StandIn

    def persistent_load(self, _: Any) -> Any:
        raise ValueError("refers to something outside")


class _StandIn:
    """Takes whatever it is given."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

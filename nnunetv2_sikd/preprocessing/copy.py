"""One class-averaged copy: made, recognised as current, and never half there."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import replace
from nnunetv2_sikd.preprocessing.stored import check_properties, open_array

# Raise when the same source would give another copy: existing copies are then made anew.
_FORMAT = 1
_RECORD = "sikd"


@dataclass(frozen=True)
class CopySpec:
    """How copies of one configuration are made.

    Attributes:
        source: Folder of nnU-Net's preprocessed cases (``nnUNetPlans_2d``, say).
        target: Folder of the copies, on the same file system.
        per_slice: Average each slice apart (2D configurations) or the whole volume (3D).
        patch_size: nnU-Net's patch size, which decides the chunks in the file.
        labels: Label values that ``dataset.json`` declares, the ignore label included.
        ignore_label: Averaged apart.
    """

    source: Path
    target: Path
    per_slice: bool
    patch_size: tuple[int, ...]
    labels: tuple[int, ...]
    ignore_label: int | None


def write_copy(spec: CopySpec, case: str, scratch: Path) -> bool:
    """Average one case into ``spec.target``; label and properties are shared with the source.

    The image is moved to its place last and whole, so a copy is there either complete or not at all.

    Args:
        spec: How.
        case: Case identifier.
        scratch: Existing folder of this process on the target's file system.

    Returns:
        Whether the case has any foreground.

    Raises:
        SIKDError: The preprocessed case cannot be read or averaged.
        OSError: The copy cannot be written.
    """
    source = _fingerprints(spec, case)  # before reading: what changes meanwhile must look changed later
    image, label, values = _read_case(spec, case)
    averaged = _average(spec, image, label)
    partial = scratch / f"{case}.b2nd"
    _write_averaged(averaged, partial, spec.patch_size, json.dumps({**_making(spec), "source": source}))
    for suffix in ("_seg.b2nd", ".pkl"):
        _share(spec.source / f"{case}{suffix}", scratch / f"{case}{suffix}")
        replace(scratch / f"{case}{suffix}", spec.target / f"{case}{suffix}")
    replace(partial, spec.target / f"{case}.b2nd")
    return _has_foreground(spec, values)


def has_foreground(spec: CopySpec, case: str) -> bool:
    """Whether a case's label, as its copy has it, holds any class besides background."""
    return _has_foreground(spec, _values(open_array(spec.target / f"{case}_seg.b2nd")[:]))


def _write_averaged(averaged: np.ndarray, file: Path, patch_size: tuple[int, ...], record: str) -> None:
    """Write ``(C, Z, Y, X)`` float32 with its record in nnU-Net's format."""
    blocks, chunks = comp_blosc2_params(averaged.shape, patch_size, averaged.itemsize)
    # Piecewise constant data: the few values repeat whole, so that shuffling their bytes apart triples the file, and
    # higher levels only take longer.
    cparams = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "filters": [blosc2.Filter.NOFILTER], "nthreads": 1}
    try:
        # The file also keeps a number of threads to read it with: it must not depend on the machine.
        how = {"chunks": chunks, "blocks": blocks, "cparams": cparams, "dparams": {"nthreads": 1}}
        written = blosc2.asarray(averaged, urlpath=str(file), mode="w", **how)
        written.schunk.vlmeta[_RECORD] = record
        del written
        # blosc2 does not report every failed write: read back what is there.
        complete = np.array_equal(open_array(file)[:], averaged)
    except (RuntimeError, ValueError) as error:
        raise OSError(errno.EIO, f"blosc2 failed, {error}; no space left?", str(file)) from error
    if not complete:
        raise OSError(errno.EIO, "incomplete after writing; no space left?", str(file))


def is_current(spec: CopySpec, case: str) -> bool:
    """Whether a complete copy of the case is there, made from its source as it is now.

    Equal size and time of change are taken for unchanged; where only the time differs (a folder moved to a
    cluster's disk), the content decides.
    """
    files = [spec.target / f"{case}{suffix}" for suffix in (".b2nd", "_seg.b2nd", ".pkl")]
    if not all(file.is_file() for file in files):
        return False
    try:
        image = open_array(files[0])  # must outlive the reading of its record, or blosc2 reads freed memory
        record = json.loads(image.schunk.vlmeta[_RECORD])
        if {key: record[key] for key in ("format", "per_slice", "ignore_label")} != _making(spec):
            return False
        return all(_unchanged(spec.source / file.name, record["source"][file.name]) for file in files)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError):
        return False


def remove_copy(spec: CopySpec, case: str) -> None:
    """Remove a copy, its image first, so that no incomplete copy looks complete."""
    for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
        (spec.target / f"{case}{suffix}").unlink(missing_ok=True)


def _has_foreground(spec: CopySpec, values: set[int]) -> bool:
    return any(value > 0 and value != spec.ignore_label for value in values)


def _values(label: np.ndarray) -> set[int]:
    """Values that occur in a label map, from the last pixel of each run of equal ones."""
    flat = label.reshape(-1)
    return set(flat[np.append(np.flatnonzero(flat[1:] != flat[:-1]), flat.size - 1)].tolist())


def _average(spec: CopySpec, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Average ``(C, Z, Y, X)`` by ``(1, Z, Y, X)``, slice by slice (bounded memory) or as a whole."""
    if not spec.per_slice:
        return class_average(image[None], label[None], ignore_label=spec.ignore_label)[0]
    averaged = np.empty_like(image)
    for z in range(image.shape[1]):
        averaged[:, z] = class_average(image[None, :, z], label[None, :, z], ignore_label=spec.ignore_label)[0]
    return averaged


def _read_case(spec: CopySpec, case: str) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Read and check a preprocessed case: image ``(C, Z, Y, X)`` float32, label ``(1, Z, Y, X)``, its values."""
    remedy = "run nnUNetv2_preprocess again for this data set"
    for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
        file = spec.source / f"{case}{suffix}"
        if not file.is_file():
            raise SIKDError(f"{file}: missing, though the case's other files are there; {remedy}")
    arrays = []
    for suffix in (".b2nd", "_seg.b2nd"):
        file = spec.source / f"{case}{suffix}"
        try:
            arrays.append(open_array(file)[:])
        except Exception as error:
            raise SIKDError(f"{file}: damaged, cannot be read ({error}); {remedy}") from error
    image, label = arrays
    _check_pickle(spec.source / f"{case}.pkl", remedy)
    file = spec.source / f"{case}.b2nd"
    if image.ndim != 4 or label.shape != (1, *image.shape[1:]):
        raise SIKDError(f"{file}: image has shape {image.shape} and its label {label.shape}; {remedy}")
    if not np.isfinite(image).all():
        raise SIKDError(f"{file}: has NaN or infinite intensities; mend the case's raw image, then {remedy}")
    values = _values(label)
    unknown = sorted(values - {-1, *spec.labels})
    if unknown:
        raise SIKDError(
            f"{spec.source / f'{case}_seg.b2nd'}: has label values {unknown} that dataset.json does not declare; "
            f"mend the case's label or dataset.json, then {remedy}"
        )
    return image.astype(np.float32, copy=False), label, values


def _check_pickle(file: Path, remedy: str) -> None:
    """Notice a truncated or foreign pickle without executing what it holds."""
    try:
        check_properties(file)
    except (ValueError, OSError) as error:
        raise SIKDError(f"{file}: damaged, or no properties of nnU-Net's ({error}); {remedy}") from error


def _share(source: Path, target: Path) -> None:
    """Give ``target`` the content of ``source`` at no disk space where the file system has hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _making(spec: CopySpec) -> dict[str, Any]:
    return {"format": _FORMAT, "per_slice": spec.per_slice, "ignore_label": spec.ignore_label}


def _fingerprints(spec: CopySpec, case: str) -> dict[str, Any]:
    """State of a case's files; those that are missing are left to the reading to complain about."""
    files = (spec.source / f"{case}{suffix}" for suffix in (".b2nd", "_seg.b2nd", ".pkl"))
    return {file.name: asdict(_Fingerprint.of(file)) for file in files if file.is_file()}


@dataclass(frozen=True)
class _Fingerprint:
    size: int
    mtime_ns: int
    blake2b: str

    @classmethod
    def of(cls, file: Path) -> _Fingerprint:
        status = file.stat()
        return cls(status.st_size, status.st_mtime_ns, _content_hash(file))


def _unchanged(file: Path, recorded: dict[str, Any]) -> bool:
    status = file.stat()
    if status.st_size != recorded["size"]:
        return False
    return status.st_mtime_ns == recorded["mtime_ns"] or _content_hash(file) == recorded["blake2b"]


def _content_hash(file: Path) -> str:
    digest = blake2b(digest_size=20)
    for block in _blocks(file):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: Path, size: int = 1 << 20) -> Iterator[bytes]:
    with open(file, "rb") as stream:
        while block := stream.read(size):
            yield block

"""What copies should hold, and how they are looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunetv2_sikd.averaging import class_average
from tests.helpers import IGNORE_LABEL, PreprocessedDataset, read_array


def expected_copy(dataset: PreprocessedDataset, case: str) -> np.ndarray:
    """The average of a case ``(C, Z, Y, X)``, per slice for 2D and per volume for 3D."""
    image, label = read_array(dataset.source / f"{case}.b2nd"), read_array(dataset.source / f"{case}_seg.b2nd")
    if dataset.configuration == "2d":
        slices = class_average(image.swapaxes(0, 1), label.swapaxes(0, 1), ignore_label=IGNORE_LABEL)
        return slices.swapaxes(0, 1)
    return class_average(image[None], label[None], ignore_label=IGNORE_LABEL)[0]


def assert_complete(dataset: PreprocessedDataset) -> None:
    """All copies are there, right, alone, and nothing half-made is left."""
    suffixes = (".b2nd", "_seg.b2nd", ".pkl")
    expected = {f"{case}{suffix}" for case in dataset.cases for suffix in suffixes}
    assert {file.name for file in dataset.copies.iterdir()} == expected
    for case in dataset.cases:
        np.testing.assert_array_equal(read_array(dataset.copies / f"{case}.b2nd"), expected_copy(dataset, case))
        for suffix in suffixes[1:]:
            name = f"{case}{suffix}"
            assert (dataset.copies / name).read_bytes() == (dataset.source / name).read_bytes()
    assert scratch_folders(dataset) == []


def scratch_folders(dataset: PreprocessedDataset) -> list[Path]:
    return list(dataset.folder.glob(".*.tmp"))


def versions(folder: Path) -> dict[str, tuple[int, int]]:
    """Identity and time of change of each image in a folder of copies: equal means not written again."""
    images = [file for file in folder.glob("*.b2nd") if not file.name.endswith("_seg.b2nd")]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in images}

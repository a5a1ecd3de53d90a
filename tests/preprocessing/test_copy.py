from __future__ import annotations

import dataclasses
import gc
import os
import pickle
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing import copy as copy_module
from nnunetv2_sikd.preprocessing.copy import CopySpec, is_current, remove_copy, write_copy
from tests.helpers import IGNORE_LABEL, PATCH_SIZES, PreprocessedDataset, read_array, save_case
from tests.preprocessing.helpers import expected_copy

CASE = "case_00"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def spec(dataset_2d: PreprocessedDataset) -> CopySpec:
    return make_spec(dataset_2d)


def make_spec(dataset: PreprocessedDataset) -> CopySpec:
    dataset.copies.mkdir()
    dim = 2 if dataset.configuration == "2d" else 3
    return CopySpec(
        source=dataset.source,
        target=dataset.copies,
        per_slice=dim == 2,
        patch_size=tuple(PATCH_SIZES[dim]),
        labels=(0, 1, 2, IGNORE_LABEL),
        ignore_label=IGNORE_LABEL,
    )


def replace_source(spec: CopySpec, image: np.ndarray | None = None, label: np.ndarray | None = None) -> None:
    """Write the source case anew with another image or label."""
    properties = pickle.loads((spec.source / f"{CASE}.pkl").read_bytes())
    image = read_array(spec.source / f"{CASE}.b2nd") if image is None else image
    label = read_array(spec.source / f"{CASE}_seg.b2nd") if label is None else label
    save_case(spec.source, CASE, image, label, properties, list(spec.patch_size))


class TestWriting:
    def test_2d_is_averaged_per_slice(self, dataset_2d: PreprocessedDataset, scratch: Path) -> None:
        assert write_copy(make_spec(dataset_2d), CASE, scratch)
        copy = read_array(dataset_2d.copies / f"{CASE}.b2nd")
        assert copy.dtype == np.float32
        np.testing.assert_array_equal(copy, expected_copy(dataset_2d, CASE))
        # Per slice: the background of two slices does not share its value.
        assert copy[0, 0, 0, 0] != copy[0, 1, 0, 0]

    def test_3d_is_averaged_per_volume(self, dataset_3d: PreprocessedDataset, scratch: Path) -> None:
        assert write_copy(make_spec(dataset_3d), CASE, scratch)
        copy = read_array(dataset_3d.copies / f"{CASE}.b2nd")
        np.testing.assert_array_equal(copy, expected_copy(dataset_3d, CASE))
        assert len(np.unique(copy)) == 3

    def test_label_and_properties_are_the_source_s(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        for name in (f"{CASE}_seg.b2nd", f"{CASE}.pkl"):
            assert (spec.target / name).read_bytes() == (spec.source / name).read_bytes()

    def test_where_hard_links_do_not_work_files_are_copied(
        self, spec: CopySpec, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError("no hard links here")

        monkeypatch.setattr(os, "link", refuse)
        write_copy(spec, CASE, scratch)
        assert is_current(spec, CASE)
        source, target = spec.source / f"{CASE}.pkl", spec.target / f"{CASE}.pkl"
        assert source.stat().st_ino != target.stat().st_ino
        assert source.read_bytes() == target.read_bytes()

    def test_nothing_stays_in_the_scratch_folder(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        assert list(scratch.iterdir()) == []

    def test_source_is_left_alone(self, spec: CopySpec, scratch: Path) -> None:
        before = {file.name: file.read_bytes() for file in spec.source.iterdir()}
        write_copy(spec, CASE, scratch)
        assert {file.name: file.read_bytes() for file in spec.source.iterdir()} == before

    def test_source_changed_while_it_is_averaged_is_noticed(
        self, spec: CopySpec, dataset_2d: PreprocessedDataset, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def average_while_somebody_writes(*arguments: Any) -> Any:
            (dataset_2d.source / f"{CASE}.b2nd").write_bytes(b"other")
            return average(*arguments)

        average = copy_module._average
        monkeypatch.setattr(copy_module, "_average", average_while_somebody_writes)
        write_copy(spec, CASE, scratch)
        assert not is_current(spec, CASE)

    def test_says_whether_there_is_foreground(self, spec: CopySpec, scratch: Path) -> None:
        label = read_array(spec.source / f"{CASE}_seg.b2nd")
        replace_source(spec, label=np.minimum(label, 0))
        assert not write_copy(spec, CASE, scratch)

    def test_a_failed_write_is_noticed(self, spec: CopySpec, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = blosc2.asarray

        def lose_a_value(array: np.ndarray, **kwargs: object) -> object:
            return write(np.where(np.arange(array.size).reshape(array.shape) == 7, 0, array), **kwargs)

        monkeypatch.setattr(blosc2, "asarray", lose_a_value)
        with pytest.raises(OSError, match=r"incomplete after writing.*case_00\.b2nd"):
            write_copy(spec, CASE, scratch)
        assert not (spec.target / f"{CASE}.b2nd").exists()


class TestIsCurrent:
    def test_fresh_copy(self, spec: CopySpec, scratch: Path) -> None:
        assert not is_current(spec, CASE)
        write_copy(spec, CASE, scratch)
        assert is_current(spec, CASE)

    def test_asking_often_and_with_garbage_collection_is_safe(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        for _ in range(300):
            assert is_current(spec, CASE)
            gc.collect(0)

    @pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
    def test_missing_file(self, spec: CopySpec, scratch: Path, suffix: str) -> None:
        write_copy(spec, CASE, scratch)
        (spec.target / f"{CASE}{suffix}").unlink()
        assert not is_current(spec, CASE)

    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_truncated_copy(self, spec: CopySpec, scratch: Path, kept: float) -> None:
        write_copy(spec, CASE, scratch)
        copy = spec.target / f"{CASE}.b2nd"
        copy.write_bytes(copy.read_bytes()[: int(copy.stat().st_size * kept)])
        assert not is_current(spec, CASE)

    def test_image_without_a_record_is_no_copy(self, spec: CopySpec) -> None:
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            content = (spec.source / f"{CASE}{suffix}").read_bytes()
            (spec.target / f"{CASE}{suffix}").write_bytes(content)
        assert not is_current(spec, CASE)

    @pytest.mark.parametrize("change", [{"per_slice": False}, {"ignore_label": None}], ids=str)
    def test_made_in_another_way(self, spec: CopySpec, scratch: Path, change: dict[str, object]) -> None:
        write_copy(spec, CASE, scratch)
        assert not is_current(dataclasses.replace(spec, **change), CASE)

    @pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
    def test_touched_source_of_equal_content(self, spec: CopySpec, scratch: Path, suffix: str) -> None:
        write_copy(spec, CASE, scratch)
        os.utime(spec.source / f"{CASE}{suffix}", (1, 1))
        assert is_current(spec, CASE)

    def test_changed_image(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        replace_source(spec, image=read_array(spec.source / f"{CASE}.b2nd") + 1)
        assert not is_current(spec, CASE)

    def test_changed_label(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        label = read_array(spec.source / f"{CASE}_seg.b2nd")
        replace_source(spec, label=np.where(label == 1, 2, label))
        assert not is_current(spec, CASE)

    def test_changed_content_of_equal_size(self, spec: CopySpec, scratch: Path) -> None:
        write_copy(spec, CASE, scratch)
        properties = spec.source / f"{CASE}.pkl"
        content = bytearray(properties.read_bytes())
        content[len(content) // 2] ^= 1
        properties.unlink()  # the copy shares it by a hard link
        properties.write_bytes(content)
        os.utime(properties, (1, 1))
        assert not is_current(spec, CASE)


def test_remove_copy(spec: CopySpec, scratch: Path) -> None:
    write_copy(spec, CASE, scratch)
    remove_copy(spec, CASE)
    assert list(spec.target.iterdir()) == []
    remove_copy(spec, CASE)  # what is gone may be removed again


class TestBadSource:
    def assert_refused(self, spec: CopySpec, scratch: Path, file: str, reason: str) -> None:
        with pytest.raises(SIKDError, match=reason) as raised:
            write_copy(spec, CASE, scratch)
        assert str(spec.source / file) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert list(spec.target.iterdir()) == []

    @pytest.mark.parametrize("file", [f"{CASE}.b2nd", f"{CASE}_seg.b2nd", f"{CASE}.pkl"])
    @pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
    def test_truncated(self, spec: CopySpec, scratch: Path, file: str, kept: float) -> None:
        content = (spec.source / file).read_bytes()
        (spec.source / file).write_bytes(content[: int(len(content) * kept)])
        self.assert_refused(spec, scratch, file, "damaged")

    @pytest.mark.parametrize("file", [f"{CASE}_seg.b2nd", f"{CASE}.pkl"])
    def test_missing(self, spec: CopySpec, scratch: Path, file: str) -> None:
        (spec.source / file).unlink()
        self.assert_refused(spec, scratch, file, "missing")

    def test_label_of_another_shape(self, spec: CopySpec, scratch: Path) -> None:
        replace_source(spec, label=read_array(spec.source / f"{CASE}_seg.b2nd")[..., :-1])
        self.assert_refused(spec, scratch, f"{CASE}.b2nd", "shape")

    def test_label_value_that_is_not_declared(self, spec: CopySpec, scratch: Path) -> None:
        label = read_array(spec.source / f"{CASE}_seg.b2nd")
        label[0, 0, 0, 0] = 7
        replace_source(spec, label=label)
        self.assert_refused(spec, scratch, f"{CASE}_seg.b2nd", r"label values \[7\]")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, spec: CopySpec, scratch: Path, value: float) -> None:
        image = read_array(spec.source / f"{CASE}.b2nd")
        image[1, 2, 3, 4] = value
        replace_source(spec, image=image)
        self.assert_refused(spec, scratch, f"{CASE}.b2nd", "NaN or infinite")

    def test_properties_that_would_execute_something(self, spec: CopySpec, scratch: Path, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "exploded"),)

        (spec.source / f"{CASE}.pkl").write_bytes(pickle.dumps(Bomb()))
        self.assert_refused(spec, scratch, f"{CASE}.pkl", r"would execute \w+\.mkdir")
        assert not (tmp_path / "exploded").exists()

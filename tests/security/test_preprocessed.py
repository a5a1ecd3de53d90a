"""Preprocessed cases from others: arrays that compute themselves, pickles, records and links."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.figures.cases import read_case
from nnunetv2_sikd.preprocessing import stored
from nnunetv2_sikd.preprocessing.copy import is_current
from nnunetv2_sikd.preprocessing.hook import copy_spec, write_class_averages
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.preview import draw_preview
from nnunetv2_sikd.preprocessing.stored import check_properties, open_array
from tests.helpers import PreprocessedDataset
from tests.security.helpers import Bomb

COMMAND = "open({!r}, 'w').close()\n\ndef f(inputs, output, offset):\n    output[:] = 0\n"


def write_lazy(file: Path, crater: Path, name: str = "LazyArray") -> None:
    """An array that blosc2, in some releases, computes with the source code in its metadata when it is opened."""
    file.unlink(missing_ok=True)
    blosc2.zeros((2, 2), dtype="f4", urlpath=str(file.with_name("plain.b2nd")), mode="w")
    array = blosc2.zeros((2, 2), dtype="f4", urlpath=str(file), mode="w", meta={name: 1})
    operands = {"o0": str(file.with_name("plain.b2nd"))}
    array.schunk.vlmeta["_LazyArray"] = {"UDF": COMMAND.format(str(crater)), "operands": operands, "name": "f"}


class TestArrays:
    @pytest.mark.parametrize("name", ["LazyArray", "proxy-source", "b2o"])
    def test_that_compute_themselves_never_reach_blosc2(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_lazy(tmp_path / "case.b2nd", tmp_path / "crater", name)
        monkeypatch.setattr(blosc2, "open", lambda **_: pytest.fail("opened"))
        with pytest.raises(ValueError, match="computes itself"):
            open_array(tmp_path / "case.b2nd")
        assert not (tmp_path / "crater").exists()

    @pytest.mark.parametrize("content", [b"", b"\x9e\xa8b2frame\0", b"PK\3\4" + b"\0" * 99, b"\x89HDF\r\n\x1a\n" * 9])
    def test_other_files(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "case.b2nd").write_bytes(content)
        with pytest.raises((ValueError, RuntimeError)):
            open_array(tmp_path / "case.b2nd")

    def test_are_refused_by_the_hook(self, dataset_2d: PreprocessedDataset, tmp_path: Path) -> None:
        write_lazy(dataset_2d.source / f"{dataset_2d.cases[0]}.b2nd", tmp_path / "crater")
        with pytest.raises(SIKDError, match=f"{dataset_2d.cases[0]}.b2nd: damaged, .*computes itself"):
            write_class_averages(dataset_2d.name, "2d", num_processes=1)


def properties() -> dict[str, Any]:
    """As nnU-Net saves them."""
    return {
        "sitk_stuff": {"spacing": (1.0, 1.0, 5.0), "origin": (0.0, np.float64(0), 0.0)},
        "spacing": [np.float32(5.0), 1.0, 1.0],
        "bbox_used_for_cropping": [[0, np.int64(4)], [0, 40]],
        "class_locations": {1: np.arange(12).reshape(3, 4), (1, 2): np.zeros((0, 4), np.int64), 2: []},
        "nnUNet": {"mask": np.asfortranarray(np.eye(3, dtype=bool)), "none": None},
    }


class TestProperties:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_nnunets_are_fine(self, protocol: int, tmp_path: Path) -> None:
        content = properties()
        (tmp_path / "case.pkl").write_bytes(pickle.dumps(content, protocol))
        check_properties(tmp_path / "case.pkl")

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("hide", [lambda b: b, lambda b: {"spacing": [b]}, lambda b: np.array([b], object)])
    def test_bombs(self, protocol: int, hide: Callable[[Bomb], Any], tmp_path: Path) -> None:
        file, crater = tmp_path / "case.pkl", tmp_path / "crater"
        file.write_bytes(pickle.dumps(hide(Bomb(crater)), protocol))
        with pytest.raises(ValueError, match=r"would execute \w+\.mkdir"):
            check_properties(file)
        assert not crater.exists()
        pickle.loads(file.read_bytes())
        assert crater.is_dir()

    @pytest.mark.parametrize(
        "content",
        [
            b"cbuiltins\neval\n(V1\ntR.",
            b"c__builtin__\ngetattr\n.",
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
            b"(S'x'\nios\nsystem\n.",
            b"Pid\n.",
            b"\x80\x02K\x01r\xff\xff\xff\x7f.",
            b"",
            b"\x80\x04}",
        ],
    )
    def test_made_by_hand(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "case.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=r"\w"):
            check_properties(tmp_path / "case.pkl")

    def test_stand_ins_do_nothing(self, tmp_path: Path) -> None:
        made = stored._Inert((tmp_path / "x").open("w+b")).find_class("numpy", "ndarray")
        assert type(made(1, 2)).__name__ == "_StandIn"

    def test_figures_and_preview_load_none(self, dataset_2d: PreprocessedDataset, tmp_path: Path) -> None:
        write_class_averages(dataset_2d.name, "2d", num_processes=1)
        for case in dataset_2d.cases:
            for folder in (dataset_2d.source, dataset_2d.copies):
                (folder / f"{case}.pkl").unlink()
                (folder / f"{case}.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "crater")))
        image, label = read_case(PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans"), dataset_2d.cases[0])
        assert image.shape[1:] == label.shape
        draw_preview(dataset_2d.name, "2d", "nnUNetPlans", cases=1)
        assert not (tmp_path / "crater").exists()


class TestFoldersOfCopies:
    def test_a_link_is_refused_and_nothing_behind_it_deleted(
        self, dataset_2d: PreprocessedDataset, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "precious.b2nd").touch()
        dataset_2d.copies.symlink_to(elsewhere)
        with pytest.raises(SIKDError, match="is a link"):
            write_class_averages(dataset_2d.name, "2d", num_processes=1)
        assert [file.name for file in elsewhere.iterdir()] == ["precious.b2nd"]

    @pytest.mark.parametrize(
        "source",
        [{}, [], None, {"../../../x": {}}, {"case_00.b2nd": []}, "nested"],
    )
    def test_records_that_say_nothing_make_no_copy_current(self, source: Any, dataset_2d: PreprocessedDataset) -> None:
        write_class_averages(dataset_2d.name, "2d", num_processes=1)
        case = dataset_2d.cases[0]
        spec = copy_spec(PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans"))
        assert is_current(spec, case)
        array = blosc2.open(urlpath=str(spec.target / f"{case}.b2nd"), mode="a")
        record = {**json.loads(array.schunk.vlmeta["sikd"]), "source": source}
        array.schunk.vlmeta["sikd"] = "[" * 10**5 if source == "nested" else json.dumps(record)
        del array
        assert not is_current(spec, case)

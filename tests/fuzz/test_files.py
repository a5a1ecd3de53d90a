"""Files of any content: a result, or one error of one line. What coverage-guided fuzzing found is here as examples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nnunetv2_sikd.benchmark import run as steps
from nnunetv2_sikd.benchmark.file import load_specification
from nnunetv2_sikd.benchmark.specification import Specification, TestSet, Training
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.files import load_dataset_json
from nnunetv2_sikd.evaluation.labels import LabelTable
from nnunetv2_sikd.evaluation.report import COLUMNS
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from nnunetv2_sikd.preprocessing.hook import copy_spec
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.prepare import read_splits
from nnunetv2_sikd.report import cost, scores
from nnunetv2_sikd.trainers import variants
from tests.benchmark.helpers import SPECIFICATION
from tests.helpers import PreprocessedDataset, make_dataset_json, make_plans

SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 10**12), st.floats(), st.text(max_size=8)),
    st.sampled_from(["2d", "../x", "-o", "Dataset901_Tiny", 10**400]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@st.composite
def changed(draw: st.DrawFn, content: Any) -> Any:
    """A valid content of which one part, at any depth, is something else or missing."""
    content = deepcopy(content)
    part, parents = content, []
    while isinstance(part, (dict, list)) and part and (not parents or draw(st.integers(0, 3))):
        key = draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        parents.append((part, key))
        part = part[key]
    holder, key = parents[-1]
    if draw(st.booleans()):
        holder[key] = draw(VALUES)
    else:
        del holder[key]
    return content


def one_line(call: Callable[[], Any]) -> Any:
    """What a call returns; None if it raises an error of this package, of one line."""
    try:
        return call()
    except SIKDError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 5000
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@given(st.text(max_size=60) | VALUES.map(lambda value: yaml.safe_dump(value)))
@example("title: 2001-13-45")  # found by the fuzzer: ValueError
@example("title: !!timestamp x")
@example("title: " + "9" * 5000)
@example("&a [*a]")
@example("? [a]\n: b")
@settings(max_examples=150, deadline=None)
def test_benchmark_file_of_any_text(folder: Path, text: str) -> None:
    file = folder / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert one_line(lambda: load_specification(file)) is None


@given(changed(SPECIFICATION))
@example({**SPECIFICATION, "arms": {"\n": None}})  # found by hypothesis: an error of two lines
@settings(max_examples=100, deadline=None)
def test_benchmark_file_with_a_change(folder: Path, content: dict[str, Any]) -> None:
    file = folder / "changed.yaml"
    with contextlib.suppress(ValueError):  # of a number that Python does not print
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
    found = one_line(lambda: load_specification(file))
    if found is not None:
        assert isinstance(found, Specification)
        assert [found.is_source(test) in (True, False) for test in found.tests]
        assert len({training.key for training in found.trainings()}) == len(list(found.trainings()))


PLANS = make_plans("Dataset901_Tiny")


@given(changed(PLANS))
@example({**PLANS, "configurations": {"2d": {}}})  # found by the fuzzer: KeyError 'UNet_class_name'
@example({**PLANS, "configurations": {"2d": {**PLANS["configurations"]["2d"], "inherits_from": "2d"}}})
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plans_with_a_change(dataset_2d: PreprocessedDataset, content: dict[str, Any]) -> None:
    file = dataset_2d.folder / "nnUNetPlans.json"
    file.write_text(json.dumps(content))
    one_line(lambda: copy_spec(PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans")))
    changes: dict[str, Any] = {"spacing": [2.0, 2.0], "patch_size": [16, 16], "features_per_stage": [2, 4, 4]}
    one_line(lambda: derive_configuration(file, "2d_new", "2d", **changes, write=False))


DATASET = make_dataset_json(regions=True, ignore=True, channels=2, num_cases=3)


@given(changed(DATASET))
@example({**DATASET, "labels": {"whole": [1, 2]}})  # found by the fuzzer: RuntimeError, background not declared
@example({**DATASET, "regions_class_order": None})  # AssertionError
@example({**DATASET, "labels": {**DATASET["labels"], "background": 10**400}})  # OverflowError
@example({**DATASET, "labels": {**DATASET["labels"], "background": float("inf")}})  # OverflowError
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dataset_json_with_a_change(dataset_2d: PreprocessedDataset, content: dict[str, Any]) -> None:
    file = dataset_2d.folder / "dataset.json"
    file.write_text(json.dumps(content))
    one_line(lambda: copy_spec(PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans")))
    described = one_line(lambda: load_dataset_json(file, [], "-djfile"))
    if described is not None:
        one_line(lambda: LabelTable.from_dataset_json(described[0], file))


@given(changed([{"train": ["a", "b"], "val": ["c"]}]) | VALUES)
@example([{"train": [1, "a"], "val": []}])  # found by the fuzzer: TypeError
@settings(max_examples=100, deadline=None)
def test_splits(folder: Path, content: Any) -> None:
    file = folder / "splits_final.json"
    file.write_text(json.dumps(content))
    for fold in one_line(lambda: read_splits(file)) or ():
        assert all(isinstance(case, str) for case in (*fold["train"], *fold["val"]))


COST = {
    "device": "x",
    "epochs": 2,
    "seconds_per_epoch": [1.5],
    "total_seconds": 3.5,
    "peak_memory_mib": {"resident": 9},
}


@given(changed(COST) | VALUES)
@example({**COST, "total_seconds": 10**400})
@example({**COST, "seconds_per_epoch": 5})
@settings(max_examples=100, deadline=None)
def test_records(folder: Path, content: Any) -> None:
    file = folder / "record.json"
    file.write_text(json.dumps(content))
    assert isinstance(steps._read(file), dict)
    record = cost._read(file)
    assert len(cost._columns([record, COST])) == 5
    assert cost._total([record, COST]) >= 0


def test_nested_without_end(folder: Path) -> None:
    file = folder / "record.json"
    file.write_text("[" * 10**5)
    assert steps._read(file) == {}
    assert cost._read(file) == {}
    for read in (read_splits, lambda file: load_dataset_json(file, [], "-djfile")):
        with pytest.raises(SIKDError):
            read(file)


HEADER = ",".join(COLUMNS)
CELLS = st.one_of(st.floats().map(repr), st.sampled_from(["", "nan", "none", "both", "a", "p1_x", "'", '"', "1e999"]))


@given(st.lists(st.lists(CELLS, min_size=8, max_size=13).map(",".join), max_size=4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_metrics(folder: Path, rows: list[str], with_header: bool) -> None:
    file = folder / "metrics.csv"
    file.write_text("\n".join([HEADER] * with_header + rows))
    training = Training(arm="stock", trainer="nnUNetTrainer", seed=0, fold=0)
    table = one_line(lambda: scores._read(file, TestSet(key="t", dataset=1), training))
    if table is not None:
        assert list(table.columns[-2:]) == ["volume_reference", "volume_prediction"]
        assert not ((table["dice"] < 0) | (table["dice"] > 1)).any()


@given(st.from_regex(r"\AnnUNetTrainer(DA5|_SIKD(Teacher|Student))?(_\w{1,12}){0,4}\Z") | st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_names_of_trainers(name: str) -> None:
    before = set(vars(variants))
    found = getattr(variants, name, None)
    if found is not None and name not in before:
        assert found.__name__ == name
        delattr(variants, name)

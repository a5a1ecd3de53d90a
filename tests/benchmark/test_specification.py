"""A benchmark file says what is meant, or what is wrong with it in one line."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.benchmark.file import as_file, load_specification, select_part, shipped_benchmarks
from nnunetv2_sikd.benchmark.specification import Specification
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers import variants
from tests.benchmark.helpers import SPECIFICATION, write_benchmark

Change = Callable[[dict[str, Any]], Any]


def told(text: str, folder: Path) -> str:
    """The one line about a bad file, without the file's name."""
    file = folder / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SIKDError) as raised:
        load_specification(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


@pytest.mark.parametrize("name", list(shipped_benchmarks()))
def test_shipped_files_are_valid(name: str) -> None:
    specification = load_specification(name)
    assert specification.baseline in specification.arms
    assert as_file(name) == name
    # A misspelt trainer would otherwise be noticed only where the data set of the file is there.
    for training in specification.trainings():
        assert issubclass(getattr(variants, training.trainer), nnUNetTrainer)


def test_values_defaults_and_names(tmp_path: Path) -> None:
    specification = load_specification(write_benchmark(tmp_path))
    assert specification.source.configuration == "2d"
    assert specification.baseline == "stock"
    assert [specification.is_source(test) for test in specification.tests] == [True, False]
    assert specification.arm_title("sikd") == "Student"
    assert specification.arm_title("stock") == "stock"
    trainings = list(specification.trainings())
    assert [training.trainer for training in trainings] == [
        "nnUNetTrainer_seed0_2epochs_3iterations",
        "nnUNetTrainer_SIKDStudent_seed0_2epochs_3iterations",
        "nnUNetTrainer_SIKDStudent_alpha1_seed0_2epochs_3iterations",
    ]
    assert trainings[0].key == "stock_seed0_fold0"


def test_bare_trainers_and_longer_arms() -> None:
    arms = {"stock": "nnUNetTrainer", "long": {"trainer": "nnUNetTrainer", "epochs": 9}}
    specification = Specification.model_validate(
        {"title": "T", "source": {"dataset": 1}, "tests": [{"key": "a", "dataset": 1}], "arms": arms}
    )
    assert [training.trainer for training in specification.trainings()] == ["nnUNetTrainer", "nnUNetTrainer_9epochs"]
    assert [training.key for training in specification.trainings()] == ["stock_fold0", "long_fold0"]


@pytest.mark.parametrize(
    ("own", "schedule"),
    [({"iterations": 7}, "2epochs_7iterations"), ({"epochs": 9, "iterations": 7}, "9epochs_7iterations")],
)
def test_an_arm_may_have_iterations_of_its_own(own: dict[str, int], schedule: str) -> None:
    arms = {"stock": "nnUNetTrainer", "long": {"trainer": "nnUNetTrainer", **own}}
    specification = Specification.model_validate({**SPECIFICATION, "arms": arms, "seeds": []})
    assert [training.trainer for training in specification.trainings()] == [
        "nnUNetTrainer_2epochs_3iterations",
        f"nnUNetTrainer_{schedule}",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Unknown keys, at each level; one that is missing because another is misspelt is told by the misspelt one.
        (lambda c: c.update(titel=c.pop("title")), "titel: unknown key; did you mean title?"),
        (lambda c: c.update(qqq=1), "qqq: unknown key; known here: title, source, tests, arms, baseline"),
        (
            lambda c: c["source"].update(datset=c["source"].pop("dataset")),
            "source.datset: unknown key; did you mean da",
        ),
        (lambda c: c["source"].update(derive={"form": "2d"}), "source.derive.form: unknown key; did you mean from?"),
        (lambda c: c["tests"][1].update(imgaes="x"), "tests.1.imgaes: unknown key; did you mean images?"),
        (lambda c: c["arms"].update(new={"trainr": "x"}), "arms.new.trainr: unknown key; did you mean trainer?"),
        (lambda c: c["schedule"].update(epoch=1), "schedule.epoch: unknown key; did you mean epochs?"),
        # Missing ones.
        (lambda c: c.pop("title"), "title: is missing"),
        (lambda c: c["source"].pop("dataset"), "source.dataset: is missing"),
        (lambda c: c["tests"][0].pop("key"), "tests.0.key: is missing"),
        (lambda c: c.update(arms={"stock": {"title": "x"}}), "arms.stock.trainer: is missing"),
        (lambda c: c["arms"].update(Reference="nnUNetTrainerDA5"), "arms: key 'Reference': the report calls"),
        (lambda c: c.update(baseline="best"), "baseline 'best' is none of the arms (stock, sikd, alpha1)"),
        (lambda c: c.update(tests=[]), "tests: List should have at least 1 item"),
        (lambda c: c.update(arms={}), "arms: Dictionary should have at least 1 item"),
        (lambda c: c.update(folds=[]), "folds: List should have at least 1 item"),
        # Wrong kinds of values.
        (lambda c: c["source"].update(dataset=[901]), "source.dataset: must be a name or a number"),
        (lambda c: c.update(source="Dataset901_Source"), "source: must hold keys and values (dataset, configuration"),
        (
            lambda c: c["arms"].update(new=None),
            "arms.new: must hold keys and values (trainer, title, epochs, iterations)",
        ),
        (lambda c: c["tests"][0].update(slices="sometimes"), "tests.0.slices: Input should be a valid boolean"),
        (lambda c: c["tests"][0].update(labels={1: "core"}), "tests.0.labels.1.[key]: Input should be a valid string"),
        (lambda c: c.update(folds=0), "folds: Input should be a valid list"),
        (lambda c: c.update(seeds=["a"]), "seeds.0: Input should be a valid integer"),
        (lambda c: c["schedule"].update(epochs=1.5), "schedule.epochs: Input should be a valid integer"),
        # Values that cannot be.
        (lambda c: c["schedule"].update(epochs=0), "schedule.epochs: Input should be greater than 0"),
        (lambda c: c["schedule"].update(iterations=0), "schedule.iterations: Input should be greater than 0"),
        (lambda c: c.update(seeds=[0, 0]), "seeds: [0, 0] must be different whole numbers from 0"),
        (lambda c: c.update(folds=[-1]), "folds: [-1] must be different whole numbers from 0"),
        (lambda c: c.update(surface_tolerance=0), "surface_tolerance: Input should be greater than 0"),
        (lambda c: c.update(surface_tolerance=float("inf")), "surface_tolerance: Input should be a finite number"),
        (lambda c: c.update(non_inferiority_margin=1), "non_inferiority_margin: Input should be less than 1"),
        (lambda c: c["source"].update(derive={"from": "2d"}), "source: configuration '2d' is derived from itself"),
        (
            lambda c: c["source"].update(configuration="s", derive={"from": "2d", "spacing": [0]}),
            "source.derive.spacing.0: Input should be greater than 0",
        ),
        (lambda c: c["tests"][0].update(key="a/b"), "tests.0.key: key 'a/b': use letters, digits and hyphens only"),
        (lambda c: c["arms"].update({"a_b": "x"}), "arms: key 'a_b': use letters, digits and hyphens only"),
        (lambda c: c["tests"][0].update(patient="("), "tests.0.patient: '(' is no regular expression"),
        (lambda c: c["tests"][0].update(patient="p*"), "tests.0.patient: 'p*' also finds nothing at all"),
        (lambda c: c["tests"][0].update(patient=""), "tests.0.patient: '' also finds nothing at all"),
        (lambda c: c["tests"][1].update(key="own"), "tests: two have the same key (own, own)"),
        (lambda c: c["arms"].update(again="nnUNetTrainer"), "arms: stock and again are the same trainer and schedule"),
        (
            lambda c: c["arms"].update(again={"trainer": "nnUNetTrainer", "epochs": 2}),
            "arms: stock and again are the same trainer and schedule",
        ),
        (
            lambda c: (c.pop("schedule"), c["arms"].update(new={"trainer": "nnUNetTrainer", "iterations": 5})),
            "arms.new: iterations need epochs, here or in 'schedule'",
        ),
        (
            lambda c: c["arms"].update(new="nnUNetTrainer_seed1"),
            "arms.new.trainer: 'nnUNetTrainer_seed1': leave seed and schedule out",
        ),
        (
            lambda c: c["arms"].update(new="nnUNetTrainer_5epochs"),
            "arms.new.trainer: 'nnUNetTrainer_5epochs': leave seed and schedule out",
        ),
    ],
)
def test_each_mistake_is_one_line(change: Change, expected: str, tmp_path: Path) -> None:
    content = deepcopy(SPECIFICATION)
    change(content)
    message = told(yaml.safe_dump(content, sort_keys=False), tmp_path)
    assert message.startswith(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("title: a\ntitle: b\n", "no valid YAML: line 2: key 'title' comes twice"),
        ("arms:\n  stock: a\n  stock: b\n", "no valid YAML: line 3: key 'stock' comes twice"),
        ("a: [", "no valid YAML: while parsing"),
        ("[1]: 2", "no valid YAML: while constructing a mapping"),
        ("", "must hold keys and values"),
        ("- a", "must hold keys and values"),
        ("a: !!python/object:os.system {}", "no valid YAML: could not determine a constructor"),
    ],
)
def test_what_is_no_benchmark_file(text: str, expected: str, tmp_path: Path) -> None:
    assert told(text, tmp_path).startswith(expected)


def test_yaml_merges_are_no_duplicates(tmp_path: Path) -> None:
    arms = "arms:\n  stock: &base { trainer: nnUNetTrainer, title: Stock }\n  long: { <<: *base, epochs: 5 }\n"
    file = tmp_path / "merged.yaml"
    file.write_text("title: T\nsource: { dataset: 1 }\ntests: [{ key: a, dataset: 1 }]\n" + arms)
    assert load_specification(file).arm_title("long") == "Stock"


def test_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(SIKDError, match=r"no benchmark file \(No such file or directory\); shipped ones: breast, "):
        load_specification(tmp_path / "none.yaml")
    with pytest.raises(SIKDError, match="no benchmark file"):
        load_specification(tmp_path)


def test_select(tmp_path: Path) -> None:
    specification = load_specification(write_benchmark(tmp_path))
    part = select_part(specification, arms=["alpha1"], folds=[1], seeds=[3, 4])
    assert list(part.arms) == ["stock", "alpha1"]  # the baseline stays
    other = select_part(specification, arms=["alpha1"], baseline="sikd")
    assert (other.baseline, list(other.arms)) == ("sikd", ["sikd", "alpha1"])
    with pytest.raises(SIKDError, match="'best' is none of the arms"):
        select_part(specification, baseline="best")
    assert (part.folds, part.seeds) == ([1], [3, 4])
    assert (
        select_part(
            specification,
        )
        == specification
    )
    for choice, expected in (
        ({"arms": ["stok"]}, "--arms stok: not in this benchmark; it has stock, sikd, alpha1"),
        ({"folds": [0, 0]}, r"--folds: \[0, 0\] must be different"),
        ({"seeds": [-1]}, r"--seeds: \[-1\] must be different"),
    ):
        with pytest.raises(SIKDError, match=expected):
            select_part(specification, **choice)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "case", "patient"),
    [
        (None, "patient001_frame01", "patient001_frame01"),
        (r"patient\d+", "patient001_frame01", "patient001"),
        (r"^([A-Z]+)_", "ABC_1", "ABC"),
    ],
)
def test_patient_of(pattern: str | None, case: str, patient: str) -> None:
    content = deepcopy(SPECIFICATION)
    content["tests"][0]["patient"] = pattern
    assert Specification.model_validate(content).tests[0].patient_of(case) == patient


@pytest.mark.parametrize("pattern", [r"subject\d+", r"patient\d+(x)?"])
def test_patient_that_is_not_found(pattern: str) -> None:
    content = deepcopy(SPECIFICATION)
    content["tests"][0]["patient"] = pattern
    with pytest.raises(SIKDError, match="of own finds none in the case patient001_x: mend the pattern"):
        Specification.model_validate(content).tests[0].patient_of("patient001_x")

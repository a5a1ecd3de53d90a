"""Labels matched by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import check_labels, match_labels, parse_label_map
from tests.evaluation.helpers import table

ACDC = {"background": 0, "RV": 1, "Myo": 2, "LV": 3}
MNMS = {"background": 0, "LVBP": 1, "LVM": 2, "RV": 3}


def test_by_name_whatever_the_values() -> None:
    found = match_labels(table(ACDC), table({"background": 0, "LV": 1}))
    assert [(label.name, label.reference, label.prediction) for label in found.labels] == [("LV", 1, 3)]
    assert (found.only_predicted, found.only_annotated) == (("RV", "Myo"), ())


def test_map_comes_first() -> None:
    found = match_labels(table(ACDC), table(MNMS), {"LV": "LVBP", "Myo": "LVM"})
    assert {label.name: (label.reference, label.prediction) for label in found.labels} == {
        "LVBP": (1, 3),
        "LVM": (2, 2),
        "RV": (3, 1),
    }
    # A mapped label is not matched by its name as well, and its target is taken.
    crossed = match_labels(table(ACDC), table(ACDC), {"LV": "RV"})
    assert {label.name: label.prediction for label in crossed.labels} == {"RV": 3, "Myo": 2}
    assert (crossed.only_predicted, crossed.only_annotated) == (("RV",), ("LV",))


def test_unmatched_on_either_side_is_told() -> None:
    found = match_labels(table(ACDC), table(MNMS))
    assert [label.name for label in found.labels] == ["RV"]
    assert (found.only_predicted, found.only_annotated) == (("Myo", "LV"), ("LVBP", "LVM"))


@pytest.mark.parametrize(
    ("label_map", "expected"),
    [
        ({"LVC": "LVBP"}, "there is no predicted label 'LVC' dataset.json has: RV, Myo, LV"),
        ({"lv": "LVBP"}, "there is no predicted label 'lv', did you mean 'LV'?"),
        ({"LV": "lvbp"}, "there is no reference label 'lvbp', did you mean 'LVBP'? dataset.json has: LVBP, LVM, RV"),
        ({"LV": "background"}, "there is no reference label 'background'"),
        ({"LV": "LVM", "Myo": "LVM"}, "gives both 'LV' and 'Myo' for the reference label 'LVM'"),
    ],
)
def test_bad_map(label_map: dict[str, str], expected: str) -> None:
    with pytest.raises(SIKDError) as told:
        match_labels(table(ACDC), table(MNMS), label_map)
    assert expected in str(told.value)


def test_nothing_in_common() -> None:
    with pytest.raises(SIKDError, match=r"\(RV, Myo, LV\).*\(lv\).*--labels PREDICTED=REFERENCE"):
        match_labels(table(ACDC), table({"background": 0, "lv": 1}))


def test_regions_ignore_and_background() -> None:
    found = table({"background": 0, "whole": [1, 2], "core": [2], "edge": 1, "ignore": 3}, regions_class_order=[1, 2])
    assert found.foreground == {"whole": (1, 2), "core": (2,), "edge": 1}
    assert found.ignore == 3
    assert found.values == {0, 1, 2, 3}
    # As in nnU-Net, a list of one value is an ordinary label if there are no regions.
    assert table({"background": [0], "core": [2]}).foreground == {"core": 2}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "LV": "one"}, "label 'LV' has value 'one', which is no whole number"),
        ({"background": 0, "LV": None}, "label 'LV' has value None"),
        ({"background": 0, "a": 1, "b": 1}, "labels 'a' and 'b' have the same value"),
    ],
)
def test_bad_dataset_json(labels: dict[str, Any], expected: str) -> None:
    with pytest.raises(SIKDError) as told:
        table(labels)
    assert expected in str(told.value)


BRATS = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": [4]}


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (BRATS, [2, 1, 4]),
        (BRATS | {"ignore": 5}, [2, 1, 4]),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None),
        ({"background": "0", "a": 1}, None),
        ({"background": 0, "a": [1], "b": [2]}, None),
    ],
)
def test_labels_that_nnunet_trains_with(labels: dict[str, Any], order: list[int] | None) -> None:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    LabelManager(labels, order)
    check_labels({"labels": labels, "regions_class_order": order}, Path("dataset.json"))


@pytest.mark.parametrize(
    ("labels", "order", "expected"),
    [
        ({"background": 0, "a": 1, "b": 2, "ignore": 2}, None, "one above the others; give it 3"),
        ({"background": 0, "a": 1, "ignore": 3}, None, "one above the others; give it 2"),
        ({"background": 0, "a": 1, "ignore": "2"}, None, "one above the others; give it 2"),
        (BRATS | {"ignore": 3}, [2, 1, 4], "one above the others; give it 5"),
        ({"background": "2", "a": 1}, None, "'background' with value 0"),
        ({"background": [0], "a": 1}, None, "'background' with value 0"),
        (BRATS | {"background": "0"}, [2, 1, 4], "'background' with value 0"),
        (BRATS, [2, 1], "'regions_class_order' with 3 values"),
    ],
)
def test_labels_that_nnunet_refuses(labels: dict[str, Any], order: list[int] | None, expected: str) -> None:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    with pytest.raises((AssertionError, RuntimeError)):
        LabelManager(labels, order)
    with pytest.raises(SIKDError) as told:
        check_labels({"labels": labels, "regions_class_order": order}, Path("dataset.json"))
    assert expected in str(told.value)


def test_gaps_without_regions_are_refused() -> None:
    with pytest.raises(SIKDError, match="0, 1, 4 and must be numbered"):
        check_labels({"labels": {"background": 0, "a": [1], "b": [4]}}, Path("dataset.json"))


def test_entries_of_the_command_line() -> None:
    assert parse_label_map(["LVC=LV", "right ventricle = RV"]) == {"LVC": "LV", "right ventricle": "RV"}


@pytest.mark.parametrize("entries", [["LV"], ["=LV"], ["LV="], ["LV=a", "LV=b"]])
def test_bad_entries(entries: list[str]) -> None:
    with pytest.raises(SIKDError, match="--labels"):
        parse_label_map(entries)

"""Label matching: any two data sets and any map give a matching that adds up, or one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable, match_labels, parse_label_map

NAMES = st.sampled_from(["LV", "lv", "RV", "Myo", "ignore", "background", "a=b", " x ", "ä", ""])
VALUES = st.one_of(st.integers(-1, 5), st.lists(st.integers(0, 5), max_size=3), st.sampled_from(["1", "x", None, 1.5]))
DATASETS = st.builds(
    lambda labels, order: {"labels": labels, **({} if order is None else {"regions_class_order": order})},
    st.dictionaries(NAMES, VALUES, max_size=5),
    st.none() | st.lists(st.integers(0, 5), max_size=3),
)


def table(dataset_json: dict[str, Any], name: str = "dataset.json") -> LabelTable | None:
    try:
        return LabelTable.from_dataset_json(dataset_json, Path(name))
    except SIKDError as error:
        told = str(error)
    assert "\n" not in told
    assert told.startswith(name)
    return None


@given(DATASETS)
@settings(max_examples=150, deadline=None)
def test_a_table_holds_all_labels_but_background_and_ignore(dataset_json: dict[str, Any]) -> None:
    found = table(dataset_json)
    if found is None:
        return
    assert "ignore" not in found.foreground
    assert set(found.foreground) <= set(dataset_json["labels"])
    values = [v if isinstance(v, tuple) else (v,) for v in found.foreground.values()]
    assert all(set(value) <= found.values and set(value) != {0} for value in values)
    assert len(set(found.foreground.values())) == len(found.foreground)


@given(DATASETS, DATASETS, st.dictionaries(NAMES, NAMES, max_size=3))
@settings(max_examples=200, deadline=None)
def test_every_label_is_matched_once_or_told(
    predicted_json: dict[str, Any], reference_json: dict[str, Any], label_map: dict[str, str]
) -> None:
    predicted, reference = table(predicted_json), table(reference_json)
    if predicted is None or reference is None:
        return
    try:
        matching = match_labels(predicted, reference, label_map)
    except SIKDError:
        return
    names = [label.name for label in matching.labels]
    assert sorted([*names, *matching.only_annotated]) == sorted(reference.foreground)
    assert [label.reference for label in matching.labels] == [reference.foreground[name] for name in names]
    used = [label.prediction for label in matching.labels]
    assert len(set(used)) == len(used)
    assert len(used) + len(matching.only_predicted) == len(predicted.foreground)
    by_name = {label.name: label.prediction for label in matching.labels}
    assert all(by_name[theirs] == predicted.foreground[ours] for ours, theirs in label_map.items())


@given(DATASETS, DATASETS)
@settings(max_examples=100, deadline=None)
def test_without_a_map_sides_can_be_exchanged(one_json: dict[str, Any], other_json: dict[str, Any]) -> None:
    one, other = table(one_json), table(other_json)
    if one is None or other is None or not set(one.foreground) & set(other.foreground):
        return
    there, back = match_labels(one, other), match_labels(other, one)
    assert {(each.name, each.prediction, each.reference) for each in there.labels} == {
        (each.name, each.reference, each.prediction) for each in back.labels
    }
    assert (there.only_predicted, there.only_annotated) == (back.only_annotated, back.only_predicted)


@given(st.dictionaries(NAMES, NAMES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_entries_of_the_command_line_come_back(label_map: dict[str, str]) -> None:
    try:
        found = parse_label_map([f"{ours}={theirs}" for ours, theirs in label_map.items()])
    except SIKDError:
        assert any(not ours.strip() or not theirs.strip() or "=" in ours for ours, theirs in label_map.items())
        return
    if not any("=" in ours for ours in label_map):
        assert found == {ours.strip(): theirs.strip() for ours, theirs in label_map.items()}

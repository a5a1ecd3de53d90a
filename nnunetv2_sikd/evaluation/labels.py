"""Labels of two data sets, matched by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_sikd.errors import SIKDError

LabelOrRegion = int | tuple[int, ...]
"""What nnU-Net's evaluation takes, and the keys of its ``summary.json``: a label's value, or a region's values."""


@dataclass(frozen=True)
class LabelTable:
    """The labels that a ``dataset.json`` declares.

    Attributes:
        source: The file, for messages.
        foreground: Name of each label or region, and its value or values.
        ignore: Value of the ignore label.
        values: All values that may occur in a file.
    """

    source: Path
    foreground: Mapping[str, LabelOrRegion]
    ignore: int | None
    values: frozenset[int]

    @classmethod
    def from_dataset_json(cls, dataset_json: Mapping[str, Any], source: Path) -> LabelTable:
        """Read the labels of a ``dataset.json``.

        Raises:
            SIKDError: A value is no whole number, or two names have the same values.
        """
        labels: dict[str, list[int] | int] = {}
        for name, value in dataset_json["labels"].items():
            try:
                labels[name] = [_whole(v) for v in value] if isinstance(value, list) else _whole(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise SIKDError(
                    f"{source}: label {name!r} has value {repr(value)[:80]}, which is no whole number from 0: mend it"
                ) from error
        # As nnU-Net has it: a list of one value is a region only beside a region of several.
        has_regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
        foreground: dict[str, LabelOrRegion] = {}
        for name, value in labels.items():
            values = [value] if isinstance(value, int) else value
            if name == "ignore" or set(values) <= {0}:
                continue
            foreground[name] = tuple(value) if isinstance(value, list) and has_regions else value_of(value)
        names = list(foreground)
        for name, other in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
            if foreground[name] == foreground[other]:
                raise SIKDError(f"{source}: labels {name!r} and {other!r} have the same value: remove one")
        flat = {v for value in labels.values() for v in ([value] if isinstance(value, int) else value)}
        order = dataset_json.get("regions_class_order") or ()
        try:
            flat |= {0, *map(int, order)}
        except (TypeError, ValueError, OverflowError) as error:
            raise SIKDError(
                f"{source}: regions_class_order {str(order)[:80]} must list whole numbers: mend it"
            ) from error
        ignore = labels.get("ignore")
        return cls(source, foreground, ignore if isinstance(ignore, int) else None, frozenset(flat))


@dataclass(frozen=True)
class MatchedLabel:
    """A structure that both sides know.

    Attributes:
        name: The reference's name.
        reference: Its value or values in the reference files.
        prediction: Its value or values in the prediction files.
    """

    name: str
    reference: LabelOrRegion
    prediction: LabelOrRegion


@dataclass(frozen=True)
class Matching:
    """What is evaluated, and the names of what is left out because only one side has it."""

    labels: tuple[MatchedLabel, ...]
    only_predicted: tuple[str, ...]
    only_annotated: tuple[str, ...]


def match_labels(predicted: LabelTable, reference: LabelTable, label_map: Mapping[str, str] | None = None) -> Matching:
    """Match labels by equal names; entries of the map come first.

    Args:
        predicted: Labels of the predictions.
        reference: Labels of the references.
        label_map: Name in the predictions to name in the references, where they differ.

    Raises:
        SIKDError: The map names an unknown label or maps two to one, or nothing matches.
    """
    pairs: dict[str, str] = {}  # reference's name to predicted name
    for name, target in (label_map or {}).items():
        _require(name, predicted, "predicted")
        _require(target, reference, "reference")
        if target in pairs:
            raise SIKDError(f"the map gives both {pairs[target]!r} and {name!r} for the reference label {target!r}")
        pairs[target] = name
    taken = set(pairs.values())
    for name in predicted.foreground:
        if name in reference.foreground and name not in taken and name not in pairs:
            pairs[name] = name
    if not pairs:
        raise SIKDError(
            f"no label of {predicted.source} ({_listed(predicted)}) is one of {reference.source} "
            f"({_listed(reference)}): name the pairs with --labels PREDICTED=REFERENCE"
        )
    matched = tuple(
        MatchedLabel(name, value, predicted.foreground[pairs[name]])
        for name, value in reference.foreground.items()
        if name in pairs
    )
    used = set(pairs.values())
    return Matching(
        matched,
        tuple(name for name in predicted.foreground if name not in used),
        tuple(name for name in reference.foreground if name not in pairs),
    )


def parse_label_map(entries: Sequence[str]) -> dict[str, str]:
    """``PREDICTED=REFERENCE`` entries of the command line as a dictionary.

    Raises:
        SIKDError: An entry has another form, or a predicted name comes twice.
    """
    result: dict[str, str] = {}
    for entry in entries:
        predicted, equals, reference = (part.strip() for part in entry.partition("="))
        if not (predicted and equals and reference):
            raise SIKDError(f"--labels {entry}: is not of the form PREDICTED=REFERENCE, for example LVC=LV")
        if predicted in result:
            raise SIKDError(f"--labels: names the predicted label {predicted!r} twice")
        result[predicted] = reference
    return result


def value_of(value: int | list[int]) -> int:
    """The value of a label given as a number or as a list of one."""
    return value if isinstance(value, int) else value[0]


def check_labels(dataset_json: Mapping[str, Any], source: Path) -> None:
    """Check that nnU-Net can train with the labels of a ``dataset.json``.

    Raises:
        SIKDError: It cannot.
    """
    table = LabelTable.from_dataset_json(dataset_json, source)
    labels = dataset_json["labels"]
    has_regions = any(isinstance(value, tuple) for value in table.foreground.values())
    background = labels.get("background")
    # nnU-Net takes int() of it, but with regions counts a "0" in quotes as one of them.
    if background is None or isinstance(background, list) or (background if has_regions else int(background)) != 0:
        raise SIKDError(f"{source}: needs the label 'background' with value 0; add it")
    values = sorted({0}.union(*(v if isinstance(v, tuple) else (v,) for v in table.foreground.values())))
    if "ignore" in labels and (not isinstance(labels["ignore"], int) or labels["ignore"] != values[-1] + 1):
        raise SIKDError(
            f"{source}: the label 'ignore' must have the highest value, one above the others; give it {values[-1] + 1}"
        )
    # Regions may have gaps, such as 1, 2 and 4 of BraTS: the network learns the regions, not the values.
    if not has_regions and values != list(range(len(values))):
        raise SIKDError(
            f"{source}: the labels have the values {', '.join(map(str, values))} and must be numbered "
            "0, 1, 2, ... without gaps; renumber them there and in the label files"
        )
    regions = dataset_json.get("regions_class_order")
    if has_regions and (not isinstance(regions, list) or len(regions) != len(table.foreground)):
        raise SIKDError(
            f"{source}: has regions, so that it needs 'regions_class_order' with {len(table.foreground)} values; add it"
        )


def _whole(value: Any) -> int:
    number = int(value)
    if number != float(value) or number < 0:
        raise ValueError(f"{value} is no whole number from 0")
    return number


def _require(name: str, table: LabelTable, side: str) -> None:
    if name not in table.foreground:
        alike = [other for other in table.foreground if other.casefold() == name.casefold()]
        meant = f", did you mean {alike[0]!r}?" if alike else ""
        raise SIKDError(f"there is no {side} label {name!r}{meant} {table.source} has: {_listed(table)}")


def _listed(table: LabelTable) -> str:
    return ", ".join(table.foreground) or "no foreground labels"

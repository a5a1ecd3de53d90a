"""Settings, versions and hashes: what was run, so that it can be run again."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_sikd import __version__
from nnunetv2_sikd.benchmark.layout import Layout
from nnunetv2_sikd.benchmark.specification import Training
from nnunetv2_sikd.distillation.checkpoint import number_of_parameters, read_checkpoint, weights_hash
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.report.formatting import NOTHING, Table

_PACKAGES = (
    *("nnunetv2", "torch", "batchgeneratorsv2", "dynamic-network-architectures", "numpy", "scipy"),
    *("statsmodels", "pandas", "surface-distance", "SimpleITK", "matplotlib"),
)
_SHOWN = 12  # characters of a hash in a table


def settings(layout: Layout) -> str:
    """The benchmark as it was run, as YAML."""
    content = layout.specification.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def versions() -> Table:
    """Versions of what evaluated and reported; those of the trainings stand in their own records."""
    rows = [["Python", platform.python_version()], ["System", platform.platform()], ["nnunetv2-sikd", __version__]]
    for package in _PACKAGES:
        try:
            rows.append([package, version(package)])
        except PackageNotFoundError:
            rows.append([package, NOTHING])
    return Table(["Software", "Version"], rows, range(2))


def data_hashes(layout: Layout) -> Table:
    """SHA-256 of what the trainings and evaluations read."""
    plans = f"{layout.specification.source.plans}.json"
    files = [layout.preprocessed() / name for name in ("dataset.json", plans, "splits_final.json")]
    rows = [[f"{file.parent.name}/{file.name}", _hash([file])] for file in files]
    for test in layout.specification.tests:
        try:
            ending = layout.dataset_json(test.dataset).get("file_ending", "")
            folder = layout.references(test)
            references = sorted(folder.glob(f"*{ending}")) if ending else []
            rows.append([f"{folder.parent.name}/{folder.name} ({len(references)} references)", _hash(references)])
        except SIKDError:
            rows.append([f"{test.dataset}/{test.references}", NOTHING])
    return Table(["Data", "SHA-256"], rows, range(2))


def training_records(layout: Layout) -> list[dict[str, Any]]:
    """What each training's final checkpoint says about itself, and the hash of its weights."""
    return [_record(layout, training) for training in layout.specification.trainings()]


def checkpoint_table(records: list[dict[str, Any]]) -> Table:
    """The records as text."""
    rows = []
    for record in records:
        dice = record.get("teacher_pseudo_dice")
        told = ", ".join(f"{name} {number:.2f}" for name, number in dice.items()) if isinstance(dice, dict) else NOTHING
        rows.append(
            [
                record["training"],
                record["trainer"],
                str(record.get("weights_sha256", record["state"]))[:_SHOWN],
                str(record.get("teacher_sha256", NOTHING))[:_SHOWN],
                told,
                str(record.get("parameters", NOTHING)),
            ]
        )
    headers = ["Training", "Trainer", "Weights (SHA-256)", "Teacher's weights", "Teacher's pseudo Dice", "Parameters"]
    return Table(headers, rows, range(5), "Whole hashes are in trainings.csv.")


def _record(layout: Layout, training: Training) -> dict[str, Any]:
    file = layout.fold(training.trainer, training.fold) / "checkpoint_final.pth"
    record: dict[str, Any] = {"training": training.key, "arm": training.arm, "trainer": training.trainer}
    if not file.is_file():
        return {**record, "state": "not there"}
    try:
        checkpoint = read_checkpoint(file)
        weights = checkpoint["network_weights"]
        record |= {"weights_sha256": weights_hash(weights), "parameters": number_of_parameters(weights)}
    except SIKDError:
        return {**record, "state": "damaged"}
    sikd = checkpoint["init_args"].get("sikd")
    return {**(sikd if isinstance(sikd, dict) else {}), **record, "state": "finished"}


def record_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with plain values only, for a CSV file."""
    return [
        {key: json.dumps(value) if isinstance(value, (dict, list)) else value for key, value in record.items()}
        for record in records
    ]


def _hash(files: Iterable[Path]) -> str:
    digest, some = hashlib.sha256(), False
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            return NOTHING
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
        some = True
    return digest.hexdigest() if some else NOTHING

"""From raw to preprocessed: only what is missing is run, with nnU-Net's commands stood in for."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing import prepare as module
from nnunetv2_sikd.preprocessing.prepare import prepare
from tests.benchmark.helpers import SOURCE, write_raw
from tests.helpers import make_plans

CASES = [f"case_{number}" for number in range(3)]


class NnUNet:
    """Does what nnU-Net's commands do to folders, and notes which were run."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.preprocessed = folder / "raw" / SOURCE, folder / "preprocessed" / SOURCE
        self.commands: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.status = 0
        self.leaves_out: str | None = None
        self.reference = b""

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        self.commands.append(" ".join(command))
        self.environments.append(environment or {})
        if self.status == 0 and command[0] == "nnUNetv2_plan_and_preprocess":
            self.plan()
        elif self.status == 0 and command[0] == "nnUNetv2_extract_fingerprint":
            self.fingerprint.write_text("{}")
        elif self.status == 0:
            self.preprocess(command[command.index("-c") + 1])
        return self.status

    @property
    def fingerprint(self) -> Path:
        return self.preprocessed / "dataset_fingerprint.json"

    def plan(self) -> None:
        self.preprocessed.mkdir(exist_ok=True)
        self.fingerprint.write_text("{}")
        (self.preprocessed / "dataset.json").write_text((self.raw / "dataset.json").read_text())
        (self.preprocessed / "nnUNetPlans.json").write_text(json.dumps(make_plans(SOURCE)))

    def preprocess(self, configuration: str) -> None:
        cases = self.preprocessed / f"nnUNetPlans_{configuration}"
        for folder in (cases, self.preprocessed / "gt_segmentations"):
            folder.mkdir(exist_ok=True)
        for file in [*(cases / f"{case}.pkl" for case in CASES)] + [
            self.preprocessed / "gt_segmentations" / f"{case}.nii.gz" for case in CASES
        ]:
            if file.name != self.leaves_out and (file.suffix == ".pkl" or not file.is_file()):  # newer references stay
                file.write_bytes(pickle.dumps({"spacing": [1.0]}) if file.suffix == ".pkl" else self.reference)


@pytest.fixture
def nnunet(nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch) -> NnUNet:
    write_raw(nnunet_folders, SOURCE, training=CASES)
    fake = NnUNet(nnunet_folders)
    monkeypatch.setattr(module, "run", fake.run)
    monkeypatch.setattr(module, "check_raw_data", lambda raw: None)  # the files are empty here
    return fake


def test_everything_once(nnunet: NnUNet) -> None:
    prepare(901)
    assert nnunet.commands == [
        "nnUNetv2_plan_and_preprocess -d 901 --no_pp -npfp 2",
        "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 2d -np 2",
    ]
    prepare(SOURCE)
    assert len(nnunet.commands) == 2


@pytest.mark.parametrize("lost", ["nnUNetPlans_2d/case_1.pkl", "gt_segmentations/case_1.nii.gz"])
def test_preprocessing_that_was_cut_is_repeated(nnunet: NnUNet, lost: str) -> None:
    prepare(901)
    (nnunet.preprocessed / lost).unlink()
    prepare(901)
    assert len(nnunet.commands) == 3
    assert nnunet.commands[2] == nnunet.commands[1]


@pytest.mark.parametrize("cut", ["nnUNetPlans_2d/case_1.pkl", "gt_segmentations/case_1.nii.gz"])
def test_half_a_file_is_made_anew(nnunet: NnUNet, cut: str) -> None:
    (nnunet.raw / "labelsTr" / "case_1.nii.gz").write_bytes(b"whole")
    nnunet.reference = b"whole"
    prepare(901)
    whole = (nnunet.preprocessed / cut).read_bytes()
    (nnunet.preprocessed / cut).write_bytes(whole[: len(whole) // 2])
    prepare(901)
    assert nnunet.commands[2:] == nnunet.commands[1:2]
    assert (nnunet.preprocessed / cut).read_bytes() == whole


@pytest.mark.parametrize("name", ["nnUNetPlans.json", "dataset_fingerprint.json"])
def test_half_of_the_plans_is_made_anew(nnunet: NnUNet, name: str) -> None:
    prepare(901)
    file = nnunet.preprocessed / name
    file.write_text('{"configurations": {"2d": {"patch_size": [')
    prepare(901)
    assert len(nnunet.commands) == 3
    assert nnunet.commands[2].startswith(
        {"nnUNetPlans.json": "nnUNetv2_plan_and", "dataset_fingerprint.json": "nnUNetv2_extract_"}[name]
    )
    json.loads(file.read_text())


def test_plans_with_a_slip_stay(nnunet: NnUNet) -> None:
    prepare(901)
    file = nnunet.preprocessed / "nnUNetPlans.json"
    file.write_text('{"configurations" {}}')  # by hand
    with pytest.raises(SIKDError, match=r"nnUNetPlans\.json"):
        prepare(901)
    assert file.read_text() == '{"configurations" {}}'


def test_derived_configuration(nnunet: NnUNet) -> None:
    prepare(901, "2d_half", base="2d", changes={"spacing": [2.0, 2.0], "batch_size": 4})
    assert nnunet.commands[-1].endswith("-c 2d_half -np 2")
    assert (nnunet.preprocessed / "nnUNetPlans_2d_half" / "case_0.pkl").exists()


def test_split_beside_the_raw_data_comes_first(nnunet: NnUNet) -> None:
    split = json.dumps([{"train": CASES[:2], "val": CASES[2:]}])
    (nnunet.raw / "splits_final.json").write_text(split)
    prepare(901)
    assert (nnunet.preprocessed / "splits_final.json").read_text() == split
    prepare(901)
    (nnunet.preprocessed / "splits_final.json").write_text(json.dumps([{"train": CASES[1:], "val": CASES[:1]}]))
    with pytest.raises(SIKDError, match="and nnU-Net trains by the former; delete the one not meant"):
        prepare(901)


def test_no_augmentation_processes_while_planning(nnunet: NnUNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    prepare(901)
    assert all("nnUNet_n_proc_DA" not in environment for environment in nnunet.environments)
    monkeypatch.setenv("nnUNet_n_proc_DA", "3")
    (nnunet.preprocessed / "gt_segmentations" / "case_0.nii.gz").unlink()
    prepare(901)
    assert nnunet.environments[-1]["nnUNet_n_proc_DA"] == "3"


def test_failures_are_told(nnunet: NnUNet) -> None:
    nnunet.status = 1
    with pytest.raises(SIKDError, match=r"nnUNetv2_plan_and_preprocess failed \(exit status 1, see above\)"):
        prepare(901)
    nnunet.status, nnunet.leaves_out = 0, "case_2.pkl"
    with pytest.raises(SIKDError, match="nnUNetv2_preprocess ended, and cases are missing"):
        prepare(901)


def test_what_is_not_there(nnunet: NnUNet) -> None:
    with pytest.raises(SIKDError, match="data set 777 is in none of"):
        prepare(777)
    with pytest.raises(SIKDError, match=r"Dataset777_None/dataset\.json: not there; a raw data set is needed"):
        prepare("Dataset777_None")
    with pytest.raises(SIKDError, match=r"only nnUNetPlans are made here, make these with nnUNetv2_plan_experiment"):
        prepare(901, plans="nnUNetResEncUNetMPlans")
    nnunet.plan()
    with pytest.raises(SIKDError, match="has no configuration '4d'; choose one of"):
        prepare(901, "4d")
    assert nnunet.commands == []

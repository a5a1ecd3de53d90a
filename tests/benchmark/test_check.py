"""Whatever would end a benchmark after hours is told before it starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_sikd.benchmark.check import check_benchmark
from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.trainers.lookup import find_trainer
from tests.benchmark.helpers import SOURCE, TARGET, layout_of, write_both, write_raw
from tests.helpers import make_plans

Change = Callable[[Path], Any]


@pytest.fixture
def folder(nnunet_folders: Path) -> Path:
    write_both(nnunet_folders)
    return nnunet_folders


def refused(folder: Path, **changes: Any) -> str:
    """The error, without the part that every one has: the benchmark file."""
    with pytest.raises(SIKDError) as raised:
        check_benchmark(layout_of(folder, **changes))
    message = str(raised.value)
    assert message.startswith(f"{folder / 'tiny.yaml'}, ")
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'tiny.yaml'}, ")


def edit_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def write_plans(folder: Path) -> Path:
    preprocessed = folder / "preprocessed" / SOURCE
    preprocessed.mkdir()
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(make_plans(SOURCE)))
    (preprocessed / "dataset.json").write_text((folder / "raw" / SOURCE / "dataset.json").read_text())
    return preprocessed


def test_a_good_benchmark_passes_and_nothing_is_written(folder: Path) -> None:
    layout = layout_of(folder)
    before = sorted(folder.rglob("*"))
    check_benchmark(layout)
    assert sorted(folder.rglob("*")) == before
    write_plans(folder)
    check_benchmark(layout)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Images and references of a test set.
        (lambda raw: (raw / TARGET / "imagesTs").rename(raw / "x"), "imagesTs: no such folder of images"),
        (lambda raw: (raw / TARGET / "labelsTs").rename(raw / "x"), "labelsTs: no such folder of references"),
        (lambda raw: (raw / TARGET / "labelsTs" / "b.nii.gz").unlink(), "labelsTs: has no b of imagesTs"),
        (lambda raw: (raw / TARGET / "imagesTs" / "b_0000.nii.gz").unlink(), "imagesTs: has no b of labelsTs"),
        (
            lambda raw: [file.unlink() for file in (raw / TARGET / "imagesTs").iterdir()],
            "imagesTs: has no files named <case>_0000.nii.gz",
        ),
        (
            lambda raw: (raw / TARGET / "imagesTs" / "b_0001.nii.gz").touch(),
            "has channels 0, 1, and a network trained on Dataset901_Source needs 0 (contrast 0)",
        ),
        (lambda raw: (raw / TARGET / "imagesTs" / "c.nii.gz").touch(), "c.nii.gz: is not named <case>_0000.nii.gz"),
        # The target's description.
        (lambda raw: edit_json(raw / TARGET / "dataset.json", file_ending=".png"), "has file ending .nii.gz and"),
        (
            lambda raw: edit_json(raw / TARGET / "dataset.json", channel_names={"0": "a", "1": "b"}),
            "has 1 channel(s) and",
        ),
        (lambda raw: (raw / TARGET / "dataset.json").write_text("{"), "dataset.json: not valid JSON"),
        (lambda raw: edit_json(raw / TARGET / "dataset.json", labels=None), "has no valid 'labels'"),
        (lambda raw: edit_json(raw / TARGET / "dataset.json", channel_names=None), "has no valid 'channel_names'"),
        (
            lambda raw: edit_json(raw / TARGET / "dataset.json", labels={"background": 0, "Inner": 1}),
            "there is no reference label 'inner', did you mean 'Inner'?",
        ),
    ],
)
def test_target_data_sets(folder: Path, change: Change, expected: str) -> None:
    change(folder / "raw")
    message = refused(folder)
    assert message.startswith("test set other: ")
    assert expected in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda raw: (raw / SOURCE / "dataset.json").unlink(), "dataset.json: cannot be read"),
        (lambda raw: (raw / SOURCE / "imagesTr").rename(raw / "x"), "imagesTr: no such folder of images"),
        (lambda raw: (raw / SOURCE / "labelsTr" / "case_3.nii.gz").unlink(), "case_3.nii.gz: not there"),
        (lambda raw: (raw / SOURCE / "splits_final.json").write_text("{"), "splits_final.json: not valid JSON"),
        (lambda raw: (raw / SOURCE / "splits_final.json").write_text('[{"train": []}]'), "must be a list of folds"),
        (
            lambda raw: (raw / SOURCE / "splits_final.json").write_text('[{"train": ["case_0"], "val": ["gone"]}]'),
            "fold 0 names gone, no training cases of Dataset901_Source",
        ),
        (
            lambda raw: [file.unlink() for file in (raw / SOURCE).glob("*Tr/case_[345]*")],
            "has 3 training cases, too few for nnU-Net's 5 folds",
        ),
    ],
)
def test_source_data_set(folder: Path, change: Change, expected: str) -> None:
    change(folder / "raw")
    message = refused(folder)
    assert message.startswith("source: ")
    assert expected in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"folds": [0, 5]}, "source: fold 5 is not in nnU-Net’s split, which has folds 0 to 4"),
        ({"source": {"dataset": 901, "configuration": "2d_half"}}, "source: configuration '2d_half' is none that"),
        (
            {"source": {"dataset": 901, "configuration": "x", "derive": {"from": "2d_half"}}},
            "source: configuration '2d_half' is none that nnU-Net plans",
        ),
        ({"source": {"dataset": 901, "plans": "nnUNetResEncUNetMPlans"}}, "make these plans with nnUNetv2_plan_exper"),
        ({"arms": {"stock": "nnUNetTrainr"}}, "arms: there is no trainer nnUNetTrainr_seed0_2epochs_3iterations"),
        ({"arms": {"stock": "nnUNetTrainer_SIKDStudnet"}}, "arms: there is no trainer nnUNetTrainer_SIKDStudnet"),
        ({"arms": {"stock": "nnUNetTrainerNoMirroring"}}, "arms: there is no trainer nnUNetTrainerNoMirroring_seed0"),
        ({"arms": {"stock": "Schedule"}, "seeds": [], "schedule": None}, "arms: there is no trainer Schedule"),
        (
            {"tests": [{"key": "own", "dataset": 901, "patient": "subject"}]},
            "test set own: patient 'subject' of own finds none in the case patient001_early",
        ),
        (
            {"tests": [{"key": "own", "dataset": "901", "images": "imagesTr", "references": "labelsTr"}]},
            "are training cases of Dataset901_Source",
        ),
        (
            {"tests": [{"key": "a", "dataset": TARGET, "labels": {"cor": "inner"}}]},
            "test set a: there is no predicted label 'cor'",
        ),
        ({"tests": [{"key": "a", "dataset": TARGET}]}, "test set a: no label of"),
    ],
)
def test_what_the_file_says(folder: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refused(folder, **changes)


def test_trainers_of_others_are_found(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arms = {"stock": "nnUNetTrainerNoMirroring", "mine": "nnUNetTrainerMine"}
    assert "there is no trainer nnUNetTrainerMine" in refused(folder, arms=arms, seeds=[], schedule=None)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n\n"
        "class nnUNetTrainerMine(nnUNetTrainer):\n    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "theirs"))
    check_benchmark(layout_of(folder, arms=arms, seeds=[], schedule=None))


def test_trainers_that_cannot_be_imported(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "mine.py").write_text("import not_installed_anywhere\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "theirs"))
    arms = {"stock": "nnUNetTrainer", "mine": "nnUNetTrainerBroken"}
    message = refused(folder, arms=arms, seeds=[], schedule=None)
    assert "cannot be imported (ModuleNotFoundError: No module named 'not_installed_anywhere')" in message
    assert "trainer nnUNetTrainerBroken" in message


@pytest.mark.parametrize("name", ["torch", "isdir", "nnUNetTrainerOfNobody"])
def test_what_is_no_trainer_is_told_with_its_option(name: str) -> None:
    with pytest.raises(SIKDError, match=f"-tr {name}: nnU-Net finds no such trainer"):
        find_trainer(name, "-tr")


def test_plans_that_are_there(folder: Path) -> None:
    preprocessed = write_plans(folder)
    source: dict[str, Any] = {"dataset": 901, "configuration": "2d_half"}
    assert "has no configuration '2d_half'; choose one of" in refused(folder, source=source)
    source["derive"] = {"from": "2d", "patch_size": [30, 32]}
    assert "patch size [30, 32] must be divisible by 4 along axis 0" in refused(folder, source=source)
    source["derive"] = {"from": "2d", "patch_size": [64, 32]}
    plans = (preprocessed / "nnUNetPlans.json").read_text()
    check_benchmark(layout_of(folder, source=source))
    assert (preprocessed / "nnUNetPlans.json").read_text() == plans


def test_cascades(folder: Path) -> None:
    file = write_plans(folder) / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["cascade"] = {"inherits_from": "2d", "previous_stage": "2d"}
    plans["configurations"]["cascade_small"] = {"inherits_from": "cascade"}
    file.write_text(json.dumps(plans))
    for base in ("cascade", "cascade_small"):
        source: dict[str, Any] = {"dataset": 901, "configuration": base}
        assert f"source: configuration '{base}' is a cascade, which SIKD does not train" in refused(
            folder, source=source
        )
        source = {"dataset": 901, "configuration": "half", "derive": {"from": base, "patch_size": [64, 32]}}
        assert "source: configuration 'half' is a cascade, which SIKD does not train" in refused(folder, source=source)


def test_two_splits_that_differ(folder: Path) -> None:
    preprocessed = write_plans(folder)
    split = [{"train": ["case_0"], "val": ["case_1"]}]
    (folder / "raw" / SOURCE / "splits_final.json").write_text(json.dumps(split))
    (preprocessed / "splits_final.json").write_text(json.dumps(split, indent=4))
    check_benchmark(layout_of(folder))
    assert "fold 1 is not in" in refused(folder, folds=[1])
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["case_1"], "val": ["case_0"]}]))
    assert "delete the one not meant" in refused(folder)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainer_SIKDTeacher", "nnUNetTrainer_SIKDStudent"])
def test_trainings_of_another_split(folder: Path, trainer: str) -> None:
    preprocessed = write_plans(folder)
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["case_0"], "val": ["case_1"]}]))
    validation = layout_of(folder).fold(f"{trainer}_seed0_2epochs_3iterations", 0) / "validation"
    validation.mkdir(parents=True)
    for case in ("case_1", "case_0"):
        cases = [{"prediction_file": f"/elsewhere/{case}.nii.gz"}]
        (validation / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
        if case == "case_1":
            check_benchmark(layout_of(folder))
        else:
            assert f"arms: {validation.parent}: was validated on other cases than fold 0 of" in refused(folder)


def test_patients_of_the_training_data_are_no_test_patients(nnunet_folders: Path) -> None:
    training = [f"patient{i:03d}_late" for i in range(1, 7)]
    write_raw(nnunet_folders, SOURCE, training=training, test=["patient001_early", "patient009_early"])
    message = refused(nnunet_folders, tests=[{"key": "own", "dataset": 901, "patient": "patient\\d+"}])
    assert "cases of patient001, who are among the training patients" in message
    check_benchmark(layout_of(nnunet_folders, tests=[{"key": "own", "dataset": 901}]))


def test_old_data_sets_name_modalities(folder: Path) -> None:
    for name in (SOURCE, TARGET):
        edit_json(folder / "raw" / name / "dataset.json", channel_names=None, modality={"0": "MRI"})
    check_benchmark(layout_of(folder))


def test_png(nnunet_folders: Path) -> None:
    write_raw(nnunet_folders, SOURCE, training=[f"t{i}" for i in range(5)], test=["a"], ending=".png", channels=3)
    check_benchmark(layout_of(nnunet_folders, tests=[{"key": "own", "dataset": 901}]))


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check_device("cpu")
    with pytest.raises(SIKDError, match="-device cuda: PyTorch finds none on this machine"):
        check_device("cuda")

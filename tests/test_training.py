"""When ``train`` starts nnU-Net, and when it does not."""

from __future__ import annotations

import errno
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from nnunetv2_sikd import training
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import only_here
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from tests.helpers import PreprocessedDataset

CASES = ("case_a", "case.b")  # a name may have a dot


@pytest.fixture
def planned(dataset_2d: PreprocessedDataset) -> PlannedConfiguration:
    return PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans")


@pytest.fixture
def folder(planned: PlannedConfiguration) -> Path:
    """The folder of the fold, which is not there yet."""
    return training.fold_folder(planned, "nnUNetTrainer", 0)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were started instead of nnU-Net."""
    commands: list[list[str]] = []
    monkeypatch.setattr(training, "run", lambda command, _: commands.append(command) or 0)
    monkeypatch.setattr(training, "read_checkpoint", lambda _: None)
    return commands


def finish(folder: Path, probabilities: tuple[str, ...] = (), validated: tuple[str, ...] = CASES) -> None:
    (folder / "validation").mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    cases = [{"prediction_file": f"elsewhere/{case}.nii.gz"} for case in validated]
    (folder / "validation" / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    for case in probabilities:
        with zipfile.ZipFile(folder / "validation" / f"{case}.npz", "w") as archive:
            archive.writestr("probabilities.npy", b"numbers")


def test_a_finished_training_is_skipped(
    planned: PlannedConfiguration, folder: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    finish(folder)
    training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert not started
    assert "already trained" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("there", "cut", "validated"), [((), "", True), (CASES[:1], "", True), (CASES, CASES[1], True), (CASES, "", False)]
)
def test_probabilities_are_saved_until_every_case_has_them(
    planned: PlannedConfiguration,
    folder: Path,
    started: list[list[str]],
    there: tuple[str, ...],
    cut: str,
    validated: bool,
) -> None:
    finish(folder, there)
    if cut:
        file = folder / "validation" / f"{cut}.npz"
        file.write_bytes(file.read_bytes()[:-10])
    training.train_stock(planned, "nnUNetTrainer", 0, ["--npz"])
    assert [command[-2:] for command in started] == ([["--npz", "--val"]] if validated else [])


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_SIKDTeacher", "nnUNetTrainer_SIKDStudent"])
def test_cascades_are_refused_before_copies_are_made(
    dataset_2d: PreprocessedDataset, nnunet_folders: Path, started: list[list[str]], trainer: str
) -> None:
    dataset_2d.become_second_stage()
    with pytest.raises(SIKDError, match="SIKD does not train cascades"):
        training.train(dataset_2d.name, fold=0, trainer=trainer, device="cpu")
    assert not dataset_2d.copies.exists()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are taken for what they should be."""
    for check in ("_check_checkpoint", "_check_taught_by"):
        monkeypatch.setattr(training, check, lambda *_: None)


@pytest.mark.usefixtures("unchecked")
def test_copies_that_were_deleted_are_not_made_for_what_is_trained(
    dataset_2d: PreprocessedDataset, planned: PlannedConfiguration
) -> None:
    for trainer in ("nnUNetTrainer_SIKDTeacher", "nnUNetTrainer_SIKDStudent"):
        finish(training.fold_folder(planned, trainer, 0), validated=dataset_2d.cases[:1])
    training.train(dataset_2d.name, fold=0, device="cpu")
    assert not dataset_2d.copies.exists()


@pytest.mark.usefixtures("unchecked")
def test_a_trained_student_needs_no_teacher(
    dataset_2d: PreprocessedDataset, planned: PlannedConfiguration, started: list[list[str]]
) -> None:
    student = training.fold_folder(planned, "nnUNetTrainer_SIKDStudent", 0)
    finish(student, validated=dataset_2d.cases[:1])
    training.train(dataset_2d.name, fold=0, device="cpu")
    assert not started
    training.train(dataset_2d.name, fold=0, device="cpu", npz=True)
    assert [command[command.index("-tr") + 1] for command in started] == ["nnUNetTrainer_SIKDStudent"]
    assert started[0][-2:] == ["--npz", "--val"]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("trainer", ["nnUNetTrainer", "nnUNetTrainer_SIKDTeacher", "nnUNetTrainer_SIKDStudent"])
def test_a_training_of_another_split_is_refused(
    dataset_2d: PreprocessedDataset, planned: PlannedConfiguration, started: list[list[str]], trainer: str
) -> None:
    folder = training.fold_folder(planned, trainer, 0)
    finish(folder, validated=dataset_2d.cases[1:2])  # those of fold 1
    with pytest.raises(SIKDError, match=r"fold_0: was validated on other cases than fold 0 of .*; move the folder"):
        training.train(dataset_2d.name, fold=0, trainer=trainer, device="cpu")
    assert not started
    assert not dataset_2d.copies.exists()


@pytest.mark.parametrize("fold", ["all", 7])
def test_cases_that_no_file_tells_are_not_compared(planned: PlannedConfiguration, fold: str | int) -> None:
    folder = training.fold_folder(planned, "nnUNetTrainer", fold)
    finish(folder)
    training.check_split_of(planned, "nnUNetTrainer", fold)
    assert training.training_is_done(folder)


def test_a_second_training_of_the_same_fold_is_refused(
    planned: PlannedConfiguration, folder: Path, started: list[list[str]]
) -> None:
    folder.mkdir(parents=True)
    with (
        only_here(folder / ".training.lock", "this test is training it"),
        pytest.raises(SIKDError, match="fold_0: another process is training it; wait for it"),
    ):
        training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert not started
    training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert len(started) == 1


def test_what_another_process_has_just_trained_is_not_trained_again(
    planned: PlannedConfiguration, folder: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[Callable[[Path], bool]] = [lambda _: False, lambda _: True]
    monkeypatch.setattr(training, "training_is_done", lambda folder: checks.pop(0)(folder))
    training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert not started
    assert not checks


def test_a_file_system_without_locks_can_be_trained_on(
    planned: PlannedConfiguration, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: FileLock) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert len(started) == 1


def test_results_that_cannot_be_written_are_told(
    planned: PlannedConfiguration, folder: Path, started: list[list[str]]
) -> None:
    folder.parents[1].write_text("a file where the data set's folder belongs")
    with pytest.raises(SIKDError, match=r"fold_0: cannot be made \(Not a directory\); check permissions"):
        training.train_stock(planned, "nnUNetTrainer", 0, [])
    assert not started


def test_a_summary_that_is_none_of_nnunets_is_made_anew(
    planned: PlannedConfiguration, folder: Path, started: list[list[str]]
) -> None:
    finish(folder, CASES)
    (folder / "validation" / "summary.json").write_text("{}")
    training.train_stock(planned, "nnUNetTrainer", 0, ["--npz"])
    assert started[0][-2:] == ["--npz", "--val"]

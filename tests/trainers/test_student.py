"""The student's care for its teacher: unfit ones are refused in one clear line, whatever is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.errors import SIKDError
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, finish, start_student


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3)


@pytest.fixture
def teacher_file(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> Path:
    """Checkpoint of an untrained teacher of fold 0."""
    teacher = make_trainer(dataset, TEACHER)
    teacher.initialize()
    return finish(teacher)


def refusal(student: Any) -> str:
    with pytest.raises(SIKDError) as caught:
        student.on_train_start()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_teacher(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    message = refusal(make_trainer(dataset, STUDENT))
    assert f"nnUNetv2_train {dataset.name} 2d 0 -tr {TEACHER} -p nnUNetPlans -device cpu" in message
    assert "has no teacher" in message


def test_unfinished_teacher(dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path) -> None:
    teacher_file.rename(teacher_file.with_name("checkpoint_latest.pth"))
    message = refusal(make_trainer(dataset, STUDENT))
    assert "not finished" in message
    assert message.endswith("--c")


@pytest.mark.parametrize("kept_bytes", [0, 1000, -1000])
def test_truncated_teacher(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path, kept_bytes: int
) -> None:
    teacher_file.write_bytes(teacher_file.read_bytes()[:kept_bytes])
    message = refusal(make_trainer(dataset, STUDENT))
    assert str(teacher_file) in message
    assert "damaged" in message


class Bomb:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


def test_teacher_that_would_execute_code(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path, tmp_path: Path
) -> None:
    torch.save({"network_weights": Bomb(str(tmp_path / "executed"))}, teacher_file)
    message = refusal(make_trainer(dataset, STUDENT))
    assert "loads safely" in message
    assert not (tmp_path / "executed").exists()


def alter_fold(init_args: dict[str, Any]) -> None:
    init_args["fold"] = "all"


def alter_split(init_args: dict[str, Any]) -> None:
    init_args["sikd"]["validation_cases_sha256"] = "0" * 64


def alter_intensities(init_args: dict[str, Any]) -> None:
    init_args["plans"]["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1


def alter_labels(init_args: dict[str, Any]) -> None:
    init_args["dataset_json"]["labels"] = {"background": 0, "core": 1, "shell": 2}


def alter_channels(init_args: dict[str, Any]) -> None:
    init_args["dataset_json"]["channel_names"] = {"0": "T2"}


def alter_plans(init_args: dict[str, Any]) -> None:
    init_args["plans"]["plans_name"] = "otherPlans"


def alter_configuration(init_args: dict[str, Any]) -> None:
    init_args["configuration"] = "3d_fullres"


def alter_patch_size(init_args: dict[str, Any]) -> None:
    init_args["plans"]["configurations"]["2d"]["patch_size"] = [64, 64]


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (alter_fold, "fold all instead of 0"),
        (alter_split, "validation cases (SHA-256) 000"),
        (alter_intensities, "plans changed since in intensity properties"),
        (alter_labels, "labels {"),
        (alter_channels, "channel names {"),
        (alter_plans, "plans otherPlans instead of nnUNetPlans"),
        (alter_configuration, "configuration 3d_fullres instead of 2d"),
        (alter_patch_size, "plans changed since in patch_size"),
    ],
)
def test_unfit_teacher(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path, alter: Any, told: str
) -> None:
    checkpoint = torch.load(teacher_file, weights_only=False)
    alter(checkpoint["init_args"])
    torch.save(checkpoint, teacher_file)
    message = refusal(make_trainer(dataset, STUDENT))
    assert told in message
    assert f"-tr {TEACHER}" in message


def test_teacher_of_other_architecture(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path
) -> None:
    checkpoint = torch.load(teacher_file, weights_only=False)
    del checkpoint["network_weights"]["decoder.seg_layers.0.weight"]
    torch.save(checkpoint, teacher_file)
    assert "do not fit the network" in refusal(make_trainer(dataset, STUDENT))


def test_student_in_the_teachers_place(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path
) -> None:
    checkpoint = torch.load(teacher_file, weights_only=False)
    torch.save({**checkpoint, "trainer_name": "nnUNetTrainer"}, teacher_file)
    assert f"was trained by nnUNetTrainer, not by {TEACHER}" in refusal(make_trainer(dataset, STUDENT))


def test_a_class_of_no_validation_patch_has_no_dice(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_SIKD_force_teacher")
    student = make_trainer(dataset, STUDENT)
    # The second class is nowhere, and one voxel is taken for it.
    counts = {"loss": 0.0, "tp_hard": [90, 0], "fp_hard": [10, 1], "fn_hard": [10, 0]}
    monkeypatch.setattr(nnUNetTrainer, "validation_step", lambda *_: {k: np.array(v) for k, v in counts.items()})
    student.on_train_start()
    dice = student.my_init_kwargs["sikd"]["teacher_pseudo_dice"]
    assert dice == pytest.approx({"shell": 0.9, "core": np.nan}, nan_ok=True)
    assert not student.my_init_kwargs["sikd"]["teacher_forced"]


def test_useless_teacher_is_refused_unless_forced(
    dataset: PreprocessedDataset,
    make_trainer: MakeTrainer,
    teacher_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = torch.load(teacher_file, weights_only=False)
    for name, value in checkpoint["network_weights"].items():
        if "seg_layers" in name:  # all background
            value.zero_()
            value[:1] = 1 if name.endswith("bias") else 0
    torch.save(checkpoint, teacher_file)
    monkeypatch.delenv("nnUNet_SIKD_force_teacher")
    student = make_trainer(dataset, STUDENT)
    message = refusal(student)
    assert "pseudo Dice on its validation patches is below 0.3 for shell (0.000), core (0.000)" in message
    assert "nnUNet_SIKD_force_teacher=1" in message
    assert "Teacher's pseudo Dice" in Path(student.log_file).read_text()

    monkeypatch.setenv("nnUNet_SIKD_force_teacher", "1")
    accepted = make_trainer(dataset, STUDENT)
    accepted.on_train_start()

    # Continued, it is not judged again by what other patches happen to hold.
    monkeypatch.delenv("nnUNet_SIKD_force_teacher")
    continued = make_trainer(dataset, STUDENT)
    continued.my_init_kwargs["sikd"] = accepted.my_init_kwargs["sikd"]
    continued.on_train_start()
    assert continued.my_init_kwargs["sikd"] == accepted.my_init_kwargs["sikd"]


@pytest.mark.parametrize(("key", "value"), [("alpha", 1.0), ("teacher_view", "copy"), ("teacher_sha256", "0" * 64)])
def test_resuming_with_other_teacher_or_settings_is_refused(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, key: str, value: Any
) -> None:
    student = start_student(make_trainer, dataset)
    student.my_init_kwargs["sikd"][key] = value
    file = finish(student)
    resumed = make_trainer(dataset, STUDENT, resume=True)
    resumed.load_checkpoint(str(file))
    message = refusal(resumed)
    assert "began with another teacher, data split or settings" in message
    assert key in message


def test_settings_are_in_log_and_debug_json(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    student = start_student(make_trainer, dataset)
    debug = json.loads((Path(student.output_folder) / "debug.json").read_text())
    assert "alpha=2.0" in debug["sikd"]
    assert student.teacher.sha256 in Path(student.log_file).read_text()


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
def test_of_the_first_stage_of_a_cascade_nothing_is_predicted_for_the_second(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, name: str
) -> None:
    trainer = make_trainer(dataset, name)
    trainer.initialize()
    trainer.configuration_manager.configuration["next_stage"] = "3d_fullres"  # which is not preprocessed
    trainer.perform_actual_validation()
    assert (Path(trainer.output_folder) / "validation" / "summary.json").is_file()


def test_a_label_may_be_a_list_of_one(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    file = dataset.folder / "dataset.json"
    described = json.loads(file.read_text())
    described["labels"] = {name: value if value == 0 else [value] for name, value in described["labels"].items()}
    file.write_text(json.dumps(described))
    student = start_student(make_trainer, dataset)
    assert list(student.my_init_kwargs["sikd"]["teacher_pseudo_dice"]) == ["shell", "core"]


def test_a_refused_teacher_leaves_no_process_that_complains(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_trainer(dataset, STUDENT)
    monkeypatch.setenv("nnUNet_SIKD_force_teacher", "0")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    assert "pseudo Dice" in refusal(student)
    for loader in (student.dataloader_train, student.dataloader_val):
        assert isinstance(loader, NonDetMultiThreadedAugmenter)
        assert not loader.initialized or not any(process.is_alive() for process in loader._processes)


def test_cascade_is_refused(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    dataset.become_second_stage()
    with pytest.raises(SIKDError, match="does not train cascades"):
        make_trainer(dataset, STUDENT).initialize()


def test_copy_view_follows_the_copy_and_not_the_image(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    student = start_student(make_trainer, dataset, STUDENT.replace("_2ep", "_copyView_2ep"))
    batch = next(student.dataloader_train)
    assert batch["data"].shape[1] == 2
    image, teacher_input, mask = student._teacher_input(batch["data"], batch["target"])
    other = batch["data"].clone()
    other[:, :1] += 10
    _, same_input, _ = student._teacher_input(other, batch["target"])
    assert mask is None
    assert torch.equal(image, batch["data"][:, :1])
    assert torch.equal(teacher_input, same_input)
    assert all(len(channel.unique()) <= 3 for sample in teacher_input for channel in sample)
    # In the view "patch" the target follows the image.
    patch_view = start_student(make_trainer, dataset)
    assert not torch.equal(
        *(patch_view._teacher_input(data[:, :1], batch["target"])[1] for data in (batch["data"], other))
    )


@pytest.mark.parametrize(("control", "flat"), [("Images", False), ("LabelMaps", True)])
def test_controls_of_the_papers_table_6(
    dataset: PreprocessedDataset,
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
    control: str,
    flat: bool,
) -> None:
    student = start_student(make_trainer, dataset, STUDENT.replace("_2ep", f"_teacherOn{control}_2ep"))
    batch = next(student.dataloader_train)
    image, teacher_input, _ = student._teacher_input(batch["data"], batch["target"])
    if flat:
        assert torch.equal(teacher_input, batch["target"][0] / 2)
    else:
        assert torch.equal(teacher_input, image)
    teacher = make_trainer(dataset, TEACHER.replace("_2ep", f"_on{control}_2ep"))
    teacher.on_train_start()
    values = next(teacher.dataloader_train)["data"].unique()
    assert (len(values) <= 3) == flat
    assert not teacher.network.averages  # whose padding has the level of their background
    validated: list[torch.Tensor] = []

    def validate(self: Any, save_probabilities: bool) -> None:
        case = self.dataset_class(self.preprocessed_dataset_folder, ["case_00"]).load_case("case_00")[0]
        validated.append(torch.from_numpy(case[:]))

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", validate)
    teacher.perform_actual_validation()
    assert (len(validated[0].unique()) <= 3) == flat

"""What must hold for teacher and student alike, over dimensions, architectures and kinds of labels."""

from __future__ import annotations

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, finish, start_student

CASES = [*product((2, 3), (False, True), ("labels", "regions", "ignore")), (2, False, "regions+ignore")]
# Enough where nothing depends on the network, and nnU-Net's plots cost seconds an epoch.
FEW_CASES = [(2, False, "labels"), (3, True, "regions"), (2, False, "ignore")]


def case_id(case: Any) -> str:
    return f"{case[0]}d-{'resenc' if case[1] else 'plain'}-{case[2]}" if isinstance(case, tuple) else str(case)


@pytest.fixture(params=CASES, ids=case_id)
def dataset(request: pytest.FixtureRequest, nnunet_folders: Path) -> PreprocessedDataset:
    """A tiny data set of each kind."""
    dim, residual, labels = request.param
    return make_preprocessed_dataset(
        nnunet_folders / "preprocessed",
        dim=dim,
        residual=residual,
        regions="regions" in labels,
        ignore="ignore" in labels,
        num_cases=3,
        channels=2,
    )


def levels(images: torch.Tensor) -> int:
    """Largest number of distinct values in any image of the batch and channel."""
    return max(len(channel.unique()) for image in images for channel in image)


def test_teacher_sees_flat_classes_learns_and_validates(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer
) -> None:
    teacher = make_trainer(dataset, TEACHER)
    teacher.on_train_start()
    seen: list[torch.Tensor] = []
    teacher.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}

    loss = teacher.train_step(next(teacher.dataloader_train))["loss"]
    with torch.no_grad():
        validation = teacher.validation_step(next(teacher.dataloader_val))

    # Background, shell, core, and the ignore label averaged apart.
    num_values = 3 + teacher.label_manager.has_ignore_label
    assert len(seen) == 2
    assert all(1 < levels(images) <= num_values for images in seen)
    assert torch.isfinite(torch.as_tensor(loss))
    assert torch.isfinite(torch.as_tensor(validation["loss"]))
    after = teacher.network.state_dict()
    untrained = {name for name in before if name.endswith("weight") and torch.equal(after[name], before[name])}
    # nnU-Net gives the lowest deep supervision output no weight in its loss.
    assert untrained <= {"decoder.seg_layers.0.weight"}


def test_student_step_has_the_exact_loss_and_leaves_its_teacher_untouched(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer
) -> None:
    student = start_student(make_trainer, dataset)
    teacher = student.teacher.network
    teacher_before = weights_hash(teacher.state_dict())
    seen: list[torch.Tensor] = []
    teacher.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    batch = next(student.dataloader_train)
    image = batch["data"][:, :2]

    # The same quantities from the networks themselves, before the step changes the student.
    features: list[torch.Tensor] = []
    handle = student.network.decoder.stages[-1].register_forward_hook(lambda *a: features.append(a[2]))
    student.network.train()
    with torch.no_grad():
        output = student.network(image)
        segmentation = student.loss.segmentation(output, batch["target"])
        taught = teacher.penultimate(expected_teacher_input(student, batch))
    handle.remove()
    student.loss.forget()
    counted = torch.ones_like(image[:, :1]) if (mask := annotated(student, batch)) is None else mask.float()
    difference = ((features[0] - taught) ** 2 * counted).sum() / (counted.sum() * taught.shape[1])

    seen.clear()
    result = student.train_step(batch)

    assert len(seen) == 1
    assert 1 < levels(seen[0]) <= 3 + student.label_manager.has_ignore_label
    torch.testing.assert_close(seen[0], expected_teacher_input(student, batch))
    torch.testing.assert_close(result["parts"], torch.stack([segmentation, difference]))
    torch.testing.assert_close(torch.as_tensor(result["loss"]), segmentation + 2 * difference)
    assert weights_hash(teacher.state_dict()) == teacher_before
    assert all(parameter.grad is None for parameter in teacher.parameters())
    optimised = {id(parameter) for group in student.optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in student.network.parameters()}


def expected_teacher_input(student: Any, batch: dict[str, Any]) -> torch.Tensor:
    return class_average(
        batch["data"][:, :2], label_map(student, batch), ignore_label=student.label_manager.ignore_label
    )


def label_map(student: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Disjoint labels: nnU-Net's target, or rebuilt from the nested regions whole > core (and ignore last)."""
    target = batch["target"][0]
    if not student.label_manager.has_regions:
        return target
    label = target[:, 0].int() + target[:, 1].int()
    if student.label_manager.has_ignore_label:
        label[target[:, 2]] = student.label_manager.ignore_label
    return label[:, None]


def annotated(student: Any, batch: dict[str, Any]) -> torch.Tensor | None:
    ignored = student.label_manager.ignore_label
    return None if ignored is None else label_map(student, batch) != ignored


def test_student_checkpoint_is_a_stock_one_with_a_record(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer
) -> None:
    stock = make_trainer(dataset, "nnUNetTrainer_2epochs_2iterations")
    stock.on_train_start()
    stock.train_step(next(stock.dataloader_train))
    student = start_student(make_trainer, dataset)
    student.train_step(next(student.dataloader_train))
    files = [finish(trainer) for trainer in (stock, student)]
    theirs, ours = (read_checkpoint(file) for file in files)

    assert ours.keys() == theirs.keys()
    shapes = [{name: value.shape for name, value in c["network_weights"].items()} for c in (theirs, ours)]
    assert shapes[0] == shapes[1]
    assert abs(files[1].stat().st_size - files[0].stat().st_size) < 5_000
    record = ours["init_args"]["sikd"]
    assert record["teacher_trainer"] == TEACHER
    assert record["teacher_sha256"] == student.teacher.sha256
    assert (record["alpha"], record["teacher_view"], record["teacher_input"]) == (2.0, "patch", "class_average")
    # nnU-Net builds the network for prediction from the trainer's class alone.
    assert type(student).build_network_architecture is nnUNetTrainer.build_network_architecture


@pytest.mark.parametrize("dataset", FEW_CASES, indirect=True, ids=case_id)
@pytest.mark.parametrize("name", [TEACHER, STUDENT, f"{STUDENT.replace('_2ep', '_copyView_2ep')}"])
def test_resumed_training_equals_an_uninterrupted_one(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, name: str
) -> None:
    first = start_student(make_trainer, dataset, name) if "Student" in name else make_trainer(dataset, name)
    if "Teacher" in name:
        first.on_train_start()
    batches = [next(first.dataloader_train) for _ in range(4)]
    validation = [next(first.dataloader_val)]
    run_epoch(first, batches[:2], validation)
    file = Path(first.output_folder) / "checkpoint_latest.pth"
    first.current_epoch -= 1  # nnU-Net saves before it counts the epoch
    first.save_checkpoint(str(file))
    first.current_epoch += 1
    run_epoch(first, batches[2:], validation)

    resumed = make_trainer(dataset, name, resume=True)
    resumed.load_checkpoint(str(file))
    resumed.on_train_start()
    run_epoch(resumed, batches[2:], validation)

    assert weights_hash(resumed.network.state_dict()) == weights_hash(first.network.state_dict())
    assert resumed.current_epoch == first.current_epoch == 2
    logs = [trainer.logger.local_logger.my_fantastic_logging for trainer in (first, resumed)]
    for key in ("train_losses", "val_losses", "lrs", *(["sikd_distillation_losses"] if "Student" in name else [])):
        assert logs[0][key] == logs[1][key]
        assert len(logs[1][key]) == 2
    assert (Path(resumed.output_folder) / "progress.png").stat().st_size > 10_000


def run_epoch(trainer: Any, batches: list[Any], validation: list[Any]) -> None:
    """One epoch of nnU-Net's training loop on given batches, as ``run_training`` has it."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(copied(batch)) for batch in batches])
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(copied(batch)) for batch in validation])
    trainer.on_epoch_end()


def copied(batch: dict[str, Any]) -> dict[str, Any]:
    return {**batch, "data": batch["data"].clone(), "target": [scale.clone() for scale in batch["target"]]}


def test_compiled_step_equals_eager(
    dataset: PreprocessedDataset, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch._dynamo.reset()  # each network of this battery counts as a recompilation of the same code
    eager = start_student(make_trainer, dataset)
    batch = next(eager.dataloader_train)
    initial = {name: value.clone() for name, value in eager.network.state_dict().items()}
    eager.network.train()
    expected = eager.train_step(copied(batch))

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    compiled = start_student(make_trainer, dataset)
    compiled.teacher.network.load_state_dict(eager.teacher.network.state_dict())
    compiled.network._orig_mod.load_state_dict(initial)
    compiled.network.train()
    result = compiled.train_step(copied(batch))

    torch.testing.assert_close(result["parts"], expected["parts"])
    for name, value in compiled.network._orig_mod.state_dict().items():
        torch.testing.assert_close(value, eager.network.state_dict()[name], msg=name)

"""Losses that are NaN or infinite: noticed at once, with loss and cases, before a checkpoint is spoilt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetv2_sikd.errors import SIKDError
from tests.helpers import PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, start_student

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.fixture
def dataset(nnunet_folders: Path) -> PreprocessedDataset:
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3)


@pytest.fixture(params=[TEACHER, STUDENT])
def trainer(request: pytest.FixtureRequest, dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> Any:
    if request.param == STUDENT:
        return start_student(make_trainer, dataset)
    teacher = make_trainer(dataset, TEACHER)
    teacher.on_train_start()
    return teacher


def batch_of(trainer: Any, *, nan_in: int | None = None) -> dict[str, Any]:
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    batch["keys"] = [f"case_{i}" for i in range(len(batch["data"]))]
    if nan_in is not None:
        batch["data"][nan_in, 0, 5, 5] = float("nan")
    return batch


def told_by(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: weights.clone() for name, weights in trainer.network.state_dict().items()}


def is_as_before(trainer: Any, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weights, before[name]) for name, weights in trainer.network.state_dict().items())


def test_names_the_case_and_stops(trainer: Any) -> None:
    trainer.train_step(batch_of(trainer))
    with pytest.raises(SIKDError) as caught:
        trainer.train_step(batch_of(trainer, nan_in=1))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{trainer.output_folder}: ")
    assert "loss nan in training, epoch 0, for the batch of case_0, case_1" in message
    assert "(NaN or infinite pixels in case_1)" in message
    assert message.endswith("with --c continues from the last checkpoint")


def test_says_which_loss(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    student = start_student(make_trainer, dataset)
    student.teacher.network.decoder.transpconvs[-1].weight.data.fill_(float("inf"))
    with pytest.raises(SIKDError, match=r": segmentation loss -?\d+\.\d+, distillation loss (inf|nan) in training"):
        student.train_step(batch_of(student))


def test_infinite_segmentation_loss(trainer: Any) -> None:
    segmentation = getattr(trainer.loss, "segmentation", trainer.loss)
    forward = segmentation.forward
    segmentation.forward = lambda *args: forward(*args) + torch.inf
    with pytest.raises(SIKDError, match=r"loss inf.* in training, epoch 0, for the batch of case_0, case_1; the"):
        trainer.train_step(batch_of(trainer))


def test_checkpoints_stay(dataset: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    """The last step of an epoch breaks the weights with a finite loss: nothing of it reaches a checkpoint."""
    teacher = make_trainer(dataset, "nnUNetTrainer_SIKDTeacher_3epochs_2iterations")
    teacher.on_train_start()
    step, steps = teacher.optimizer.step, 0

    def breaking_step(*args: Any, **kwargs: Any) -> None:
        nonlocal steps
        step(*args, **kwargs)
        steps += 1
        if steps == 4:
            next(teacher.network.parameters()).data[0] = float("nan")

    teacher.optimizer.step = breaking_step
    teacher.on_train_start = lambda: None
    with pytest.raises(SIKDError, match="in validation, epoch 1"):
        teacher.run_training()
    files = sorted(Path(teacher.output_folder).glob("checkpoint_*"))
    assert [file.name for file in files] == ["checkpoint_best.pth", "checkpoint_latest.pth"]
    for file in files:
        weights = torch.load(file, weights_only=False)["network_weights"]
        assert all(torch.isfinite(values).all() for values in weights.values())


def test_mixed_precision_survives_single_overflows(trainer: Any) -> None:
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    for _ in range(2):
        before = weights_of(trainer)
        for _ in range(trainer.overflows_tolerated):
            trainer.train_step(batch_of(trainer, nan_in=0))
        assert is_as_before(trainer, before)
        trainer.train_step(batch_of(trainer))
    told = told_by(trainer)
    assert told.count("mixed precision skips this step") == 2 * trainer.overflows_tolerated
    for _ in range(trainer.overflows_tolerated):
        trainer.train_step(batch_of(trainer, nan_in=0))
    with pytest.raises(SIKDError, match="for the batch of case_0"):
        trainer.train_step(batch_of(trainer, nan_in=0))


def test_validation_tells_and_goes_on(trainer: Any) -> None:
    batch = batch_of(trainer, nan_in=1)
    trainer.network.eval()
    with torch.no_grad():
        trainer.validation_step(batch)
    assert "loss nan in validation, epoch 0, for the batch of case_0, case_1" in told_by(trainer)

"""Several processes train as one: nnU-Net's ``-num_gpus``, here with two processes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from tests.helpers import IGNORE_LABEL, PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, start_student
from tests.trainers.ranks import WORLD_SIZE, Ranks

COPY_VIEW = STUDENT.replace("_2ep", "_copyView_2ep")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    ranks = Ranks()
    yield ranks
    ranks.close()


def make_dataset(folders: Path, **kind: Any) -> PreprocessedDataset:
    return make_preprocessed_dataset(folders / "preprocessed", **{"dim": 2, "num_cases": 3, **kind})


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (TEACHER, {}),
        (STUDENT, {}),
        (COPY_VIEW, {}),
        (STUDENT, {"dim": 3}),  # Dice per image; in 2D it is that of the batch
        (STUDENT, {"regions": True}),
    ],
    ids=["teacher", "student", "copy-view", "3d", "regions"],
)
def test_gradients_are_those_of_one_process_on_the_joint_batch(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path, name: str, kind: dict[str, Any]
) -> None:
    dataset = make_dataset(nnunet_folders, **kind)
    trainer = start(make_trainer, dataset, name)
    parts = [next(trainer.dataloader_train) for _ in range(WORLD_SIZE)]
    expected = gradients_of(trainer, joined(parts))

    found = ranks.run(gradients_in_rank, dataset, name, trainer.network.state_dict(), parts, folder=nnunet_folders)

    for rank in found:
        assert rank.keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(rank[key], gradient, rtol=1e-4, atol=1e-6, msg=lambda told, key=key: key + told)


def start(make_trainer: MakeTrainer, dataset: PreprocessedDataset, name: str) -> Any:
    if name != TEACHER:
        return start_student(make_trainer, dataset, name)
    trainer = make_trainer(dataset, name)
    trainer.on_train_start()
    return trainer


def gradients_in_rank(
    rank: int, dataset: PreprocessedDataset, name: str, weights: dict[str, torch.Tensor], batches: list[Any]
) -> dict[str, torch.Tensor]:
    trainer = trainer_in_rank(dataset, name)
    trainer.on_train_start()
    trainer.network.module.load_state_dict(weights)
    return gradients_of(trainer, batches[rank])


def trainer_in_rank(dataset: PreprocessedDataset, name: str) -> Any:
    return get_trainer_from_args(dataset.name, dataset.configuration, 0, name)


def gradients_of(trainer: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Gradients of one training step, which leaves the weights as they are."""
    segmentation = getattr(trainer.loss, "segmentation", trainer.loss)
    segmentation.weight_factors = ddp_weights(segmentation.weight_factors)
    trainer.optimizer.step = lambda: None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)  # scales all of them alike
        trainer.network.train()
        trainer.train_step(batch)
    return {
        key.removeprefix("module."): parameter.grad.clone() for key, parameter in trainer.network.named_parameters()
    }


def ddp_weights(weights: Any) -> list[float]:
    """Weights of the outputs under deep supervision; in one process nnU-Net leaves out the last one."""
    weights = [*weights[:-1], 1e-6]
    return [weight / sum(weights) for weight in weights]


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    scales = zip(*(batch["target"] for batch in batches), strict=True)
    return {
        "data": torch.cat([batch["data"] for batch in batches]),
        "target": [torch.cat(scale) for scale in scales],
        "keys": [key for batch in batches for key in batch["keys"]],
    }


@pytest.mark.parametrize("annotated", ["some", "none"])
def test_pixels_count_alike_in_whichever_process_they_are(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path, annotated: str
) -> None:
    """Of the distillation; nnU-Net's cross-entropy takes its mean over the annotated pixels of each process."""
    dataset = make_dataset(nnunet_folders, ignore=True)
    student = start_student(make_trainer, dataset)
    parts = [next(student.dataloader_train) for _ in range(WORLD_SIZE)]
    for scale in parts[1]["target"]:
        scale[..., : scale.shape[-1] if annotated == "none" else scale.shape[-1] // 2] = IGNORE_LABEL
    expected = distillation_of(student, joined(parts))

    found = ranks.run(distillation_in_rank, dataset, student.network.state_dict(), parts, folder=nnunet_folders)

    for gradients, _ in found:
        assert any(gradient.abs().max() > 1e-3 for gradient in expected[0].values())
        for key, gradient in expected[0].items():
            torch.testing.assert_close(
                gradients[key], gradient, rtol=1e-3, atol=1e-5, msg=lambda told, key=key: key + told
            )
    assert sum(loss for _, loss in found) / WORLD_SIZE == pytest.approx(expected[1], rel=1e-5)


def distillation_in_rank(
    rank: int, dataset: PreprocessedDataset, weights: dict[str, torch.Tensor], batches: list[Any]
) -> tuple[dict[str, torch.Tensor], float]:
    student = trainer_in_rank(dataset, STUDENT)
    student.on_train_start()
    student.network.module.load_state_dict(weights)
    return distillation_of(student, batches[rank])


def distillation_of(student: Any, batch: dict[str, Any]) -> tuple[dict[str, torch.Tensor], float]:
    """What the distillation adds to the gradients, and its loss."""
    student.loss.alpha = 2
    both = gradients_of(student, batch)
    student.loss.alpha = 0
    segmentation = gradients_of(student, batch)
    return {key: both[key] - segmentation[key] for key in both}, float(student.loss.last_parts[1])

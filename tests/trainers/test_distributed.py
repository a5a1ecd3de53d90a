"""Several processes train as one: nnU-Net's ``-num_gpus``, here with two processes on the CPU."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run import run_training
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from torch._dynamo.backends.debugging import aot_eager
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing import hook
from nnunetv2_sikd.trainers import cost, student
from tests.helpers import IGNORE_LABEL, PreprocessedDataset, make_preprocessed_dataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, start_student
from tests.trainers.ranks import WORLD_SIZE, Ranks, run_ddp_on_cpu

COPY_VIEW = STUDENT.replace("_2ep", "_copyView_2ep")
BALANCED = STUDENT.replace("_2ep", "_classBalanced_2ep")
NORMALISED = STUDENT.replace("_2ep", "_normalised_2ep")
COSINE = STUDENT.replace("_2ep", "_cosine_2ep")
LINEAR = STUDENT.replace("_2ep", "_linear_2ep")


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
        (BALANCED, {}),
        (NORMALISED, {}),
        (COSINE, {}),
        (LINEAR, {}),
        (STUDENT.replace("_2ep", "_geometricCE_2ep"), {}),
    ],
    ids=[
        "teacher",
        "student",
        "copy-view",
        "3d",
        "regions",
        "class-balanced",
        "normalised",
        "cosine",
        "linear",
        "cross-entropy",
    ],
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
            torch.testing.assert_close(rank[key], gradient, rtol=1e-4, atol=1e-6, msg=partial(add, key))


def add(key: str, told: str) -> str:
    return f"{key}: {told}"


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
@pytest.mark.parametrize("name", [STUDENT, BALANCED, NORMALISED])
def test_pixels_count_alike_in_whichever_process_they_are(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path, annotated: str, name: str
) -> None:
    """Of the distillation; nnU-Net's cross-entropy takes its mean over the annotated pixels of each process."""
    dataset = make_dataset(nnunet_folders, ignore=True)
    student = start_student(make_trainer, dataset, name)
    parts = [next(student.dataloader_train) for _ in range(WORLD_SIZE)]
    for scale in parts[1]["target"]:
        scale[..., : scale.shape[-1] if annotated == "none" else scale.shape[-1] // 2] = IGNORE_LABEL
    expected = distillation_of(student, joined(parts))

    found = ranks.run(distillation_in_rank, dataset, name, student.network.state_dict(), parts, folder=nnunet_folders)

    for gradients, _ in found:
        assert any(gradient.abs().max() > 1e-3 for gradient in expected[0].values())
        for key, gradient in expected[0].items():
            torch.testing.assert_close(gradients[key], gradient, rtol=1e-3, atol=1e-5, msg=partial(add, key))
    assert sum(loss for _, loss in found) / WORLD_SIZE == pytest.approx(expected[1], rel=1e-5)


def distillation_in_rank(
    rank: int, dataset: PreprocessedDataset, name: str, weights: dict[str, torch.Tensor], batches: list[Any]
) -> tuple[dict[str, torch.Tensor], float]:
    student = trainer_in_rank(dataset, name)
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


def test_compiled_as_on_a_gpu(ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path) -> None:
    """nnU-Net compiles the network by default there, and DDP cuts the compiled one into its buckets."""
    dataset = make_dataset(nnunet_folders)
    student = start_student(make_trainer, dataset)
    batches = [next(student.dataloader_train) for _ in range(WORLD_SIZE)]
    weights = student.network.state_dict()
    expected = gradients_of(student, joined(batches))

    found = ranks.run(compiled_gradients_in_rank, dataset, weights, batches, folder=nnunet_folders)

    for gradients, graphs in found:
        assert graphs > 1
        for key, gradient in expected.items():
            torch.testing.assert_close(gradients[key], gradient, rtol=1e-4, atol=1e-6, msg=partial(add, key))


def compiled_gradients_in_rank(
    rank: int, dataset: PreprocessedDataset, weights: dict[str, torch.Tensor], batches: list[Any]
) -> tuple[dict[str, torch.Tensor], int]:
    graphs = 0

    def count(graph: Any, inputs: Any) -> Any:
        nonlocal graphs
        graphs += graph is not None
        return aot_eager(graph, inputs)

    torch._dynamo.reset()
    with pytest.MonkeyPatch.context() as patch:
        compiled = partial(torch.compile, backend=count)
        # Neither the teacher's pass, nor nnU-Net's Dice: their graphs are not to be counted.
        patch.setattr(torch, "compile", lambda part: compiled(part) if hasattr(part, "decoder") else part)
        patch.setattr(stock.nnUNetTrainer, "_do_i_compile", lambda self: True)
        small = partial(DistributedDataParallel, bucket_cap_mb=0.004)
        patch.setattr(torch.distributed, "_DEFAULT_FIRST_BUCKET_BYTES", 1000)
        patch.setattr(stock, "DDP", lambda network, device_ids: small(network))
        student = trainer_in_rank(dataset, STUDENT)
        student.on_train_start()
        student.network.module._orig_mod.load_state_dict(weights)
        gradients = gradients_of(student, batches[rank])
    return {key.removeprefix("_orig_mod."): value for key, value in gradients.items()}, graphs


# ---------------------------------------------------------------- copies


def test_one_process_makes_the_copies_and_the_split(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path
) -> None:
    dataset = make_dataset(nnunet_folders, num_cases=5)  # nnU-Net splits in five
    (dataset.folder / "splits_final.json").unlink()
    made = ranks.run(initialize_teacher, dataset, folder=nnunet_folders)
    assert sorted(made, key=str, reverse=True) == [([], False), (list(dataset.cases), True)]
    assert json.loads((dataset.folder / "splits_final.json").read_text())
    assert not list(dataset.folder.glob(".*.tmp"))


def initialize_teacher(rank: int, dataset: PreprocessedDataset) -> tuple[list[str], bool]:
    """The cases that this rank wrote, and whether it showed a progress bar."""
    written, bars, write_copy, tqdm, save_json = [], [], hook.write_copy, hook.tqdm, stock.save_json
    do_split = stock.nnUNetTrainer.do_split

    def write_slowly(spec: Any, case: str, scratch: Path) -> bool:
        time.sleep(0.1)
        written.append(case)
        return write_copy(spec, case, scratch)

    def show(*args: Any, disable: bool, **kwargs: Any) -> Any:
        bars.append(not disable)
        return tqdm(*args, disable=disable, **kwargs)

    def save_slowly(content: Any, file: str, **kwargs: Any) -> None:
        Path(file).touch()
        time.sleep(0.6)
        save_json(content, file, **kwargs)

    def split_later(self: Any) -> Any:
        time.sleep(0.3 * rank)  # while the other one writes the file
        return do_split(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook, "write_copy", write_slowly)
        patch.setattr(hook, "tqdm", show)
        patch.setattr(stock, "save_json", save_slowly)
        patch.setattr(stock.nnUNetTrainer, "do_split", split_later)
        trainer_in_rank(dataset, TEACHER).initialize()
    return written, any(bars)


# ---------------------------------------------------------------- refusals


def test_what_one_process_refuses_all_refuse(ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path) -> None:
    dataset = make_dataset(nnunet_folders)
    refusals = ranks.run(refuse_to_average, dataset, folder=nnunet_folders)
    assert [str(refusal) for refusal in refusals] == ["case_01: no labels"] * WORLD_SIZE
    assert all(isinstance(refusal, SIKDError) for refusal in refusals)


def test_uneven_shares_are_refused_where_dice_is_of_the_batch(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path
) -> None:
    in_2d, in_3d = make_dataset(nnunet_folders), make_dataset(nnunet_folders, dim=3, name="Dataset902_Tiny")
    for dataset in (in_2d, in_3d):
        plans_file = dataset.folder / "nnUNetPlans.json"
        plans = json.loads(plans_file.read_text())
        plans["configurations"][dataset.configuration]["batch_size"] = 3
        plans_file.write_text(json.dumps(plans))
    for refusal in ranks.run(initialize_teacher, in_2d, folder=nnunet_folders):
        assert isinstance(refusal, SIKDError)
        assert "-num_gpus 2: the batch size of 2d, 3, cannot be shared evenly" in str(refusal)
    assert ranks.run(share_of_batch, in_3d, folder=nnunet_folders) == [2, 1]


def share_of_batch(rank: int, dataset: PreprocessedDataset) -> int:
    student = trainer_in_rank(dataset, STUDENT)
    student.initialize()
    return student.batch_size


def refuse_to_average(rank: int, dataset: PreprocessedDataset) -> None:
    def refuse(spec: Any, case: str, scratch: Path) -> bool:
        raise SIKDError("case_01: no labels")

    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            time.sleep(0.5)  # the other one is done by then
            patch.setattr(hook, "_outdated", lambda spec, cases: cases)
            patch.setattr(hook, "write_copy", refuse)
        trainer_in_rank(dataset, TEACHER).initialize()


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
def test_a_loss_that_is_not_finite_stops_all(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path, name: str
) -> None:
    dataset = make_dataset(nnunet_folders, dim=3)  # where the processes' Dice are apart
    start(make_trainer, dataset, name)
    stops = ranks.run(train_with_nan, dataset, name, folder=nnunet_folders)
    assert all(isinstance(stop, SIKDError) for stop in stops)
    assert str(stops[0]) == str(stops[1])
    assert "in training, epoch 0, for the batch of broken, whole (NaN or infinite pixels in broken)" in str(stops[0])


def train_with_nan(rank: int, dataset: PreprocessedDataset, name: str) -> None:
    trainer = trainer_in_rank(dataset, name)
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    batch = {**batch, "data": batch["data"].repeat_interleave(2, 0), "keys": ["broken", "whole"]}
    batch["target"] = [scale.repeat_interleave(2, 0) for scale in batch["target"]]
    if rank == 1:
        batch["data"][0, 0, 5, 5] = float("nan")
    trainer.train_step(batch)


def test_a_useless_teacher_is_refused_by_all(ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path) -> None:
    dataset = make_dataset(nnunet_folders)
    student = start_student(make_trainer, dataset)
    refusals = ranks.run(refuse_teacher, dataset, folder=nnunet_folders)
    dice = [refusal.pop() for refusal in refusals]
    assert dice[0] == dice[1]
    assert 0 < dice[0]["shell"] < 0.9
    assert refusals[0] == refusals[1]
    assert str(student.teacher.file) in refusals[0][0]


def refuse_teacher(rank: int, dataset: PreprocessedDataset) -> list[Any]:
    student = trainer_in_rank(dataset, STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_SIKD_force_teacher", "0")
        with pytest.raises(SIKDError) as refusal:
            student.on_train_start()
    return [str(refusal.value), student.my_init_kwargs["sikd"]["teacher_pseudo_dice"]]


# ---------------------------------------------------------------- trainings

SEEDED = "nnUNetTrainer_SIKDStudent_copyView_seed1_2epochs_2iterations"
SEEDED_TEACHER = "nnUNetTrainer_SIKDTeacher_seed1_2epochs_2iterations"


def test_a_training_is_one_training(
    ranks: Ranks, make_trainer: MakeTrainer, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nnU-Net's run of a teacher and its student; the same killed and continued; final validation; prediction."""
    dataset = make_dataset(nnunet_folders, dim=3)
    batches = ranks.run(train, dataset, SEEDED_TEACHER, folder=nnunet_folders)
    assert not set(batches[0]) & set(batches[1])
    teacher, folder = (folder_of(nnunet_folders, dataset, name) for name in (SEEDED_TEACHER, SEEDED))
    taught_by = read_checkpoint(teacher / "checkpoint_final.pth")

    batches = ranks.run(train, dataset, SEEDED, folder=nnunet_folders)

    assert not set(batches[0]) & set(batches[1])
    assert len(list(folder.glob("training_log_*.txt"))) == 1
    assert (folder / "progress.png").stat().st_size > 10_000
    assert (folder / "progress_sikd.png").stat().st_size > 10_000
    recorded = json.loads((folder / "training_cost.json").read_text())
    assert (recorded["training_processes"], recorded["sessions"], recorded["epochs"]) == (WORLD_SIZE, 1, 2)
    log = next(folder.glob("training_log_*.txt")).read_text()
    assert log.count("distillation_loss") == 2
    assert log.count("SIKD student") == 1
    whole = outcome(folder)
    assert whole["record"]["teacher_sha256"] == weights_hash(taught_by["network_weights"])

    shutil.rmtree(folder)
    killed = ranks.run(train, dataset, SEEDED, False, 3, folder=nnunet_folders)
    assert [type(kill) for kill in killed] == [InterruptedError] * WORLD_SIZE
    continued = ranks.run(train, dataset, SEEDED, True, folder=nnunet_folders)
    assert continued == [rank[2:] for rank in batches]
    assert outcome(folder) == whole
    assert json.loads((folder / "training_cost.json").read_text())["sessions"] == 2

    validate_with_stock_command(dataset, monkeypatch)
    scores = json.loads((folder / "validation" / "summary.json").read_text())
    assert [Path(case["prediction_file"]).name for case in scores["metric_per_case"]] == ["case_00.nii.gz"]
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,), "checkpoint_final.pth")
    assert weights_hash(predictor.network.state_dict()) == whole["weights"]


def validate_with_stock_command(dataset: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """``nnUNetv2_train … -num_gpus 2 --val``, from where its arguments are read."""
    monkeypatch.setattr(run_training, "run_ddp", run_ddp_on_cpu)
    monkeypatch.setenv("MASTER_ADDR", "localhost")  # nnU-Net sets them for good
    monkeypatch.setenv("MASTER_PORT", str(run_training.find_free_network_port()))
    run_training.run_training(dataset.name, dataset.configuration, 0, SEEDED, num_gpus=2, only_run_validation=True)


def train(
    rank: int, dataset: PreprocessedDataset, name: str, resume: bool = False, die_at: int | None = None
) -> list[str]:
    """nnU-Net's ``run_ddp`` without the final validation; returns hashes of the training batches."""
    seen = []
    trainers = []

    with pytest.MonkeyPatch.context() as patch:
        step = stock.nnUNetTrainer.train_step

        def recorded_step(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
            if len(seen) == die_at:
                raise InterruptedError
            seen.append(weights_hash({"data": batch["data"]}))
            trainers[:] = [self]
            return step(self, batch)

        patch.setattr(stock.nnUNetTrainer, "train_step", recorded_step)
        patch.setattr(stock.nnUNetTrainer, "perform_actual_validation", lambda *_: None)
        if "Teacher" in name or resume or die_at:
            patch.setattr(LocalLogger, "plot_progress_png", lambda *_: None)
        if rank > 0:
            for module, function in ((torch, "save"), (cost, "write_json"), (student, "plot_distillation")):
                patch.setattr(module, function, None)  # one rank writes
        run_training.run_ddp(
            rank, dataset.name, "3d_fullres", 0, name, "nnUNetPlans", False, resume, False, None, False, False, 2
        )
    check_teacher_is_outside(trainers[0])
    return seen


def check_teacher_is_outside(trainer: Any) -> None:
    assert isinstance(trainer.network, DistributedDataParallel)
    if not hasattr(trainer, "teacher"):
        return
    teacher = trainer.teacher.network
    assert not isinstance(teacher, DistributedDataParallel)
    assert weights_hash(teacher.state_dict()) == trainer.teacher.sha256
    assert all(parameter.grad is None for parameter in teacher.parameters())
    optimised = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert optimised == {id(parameter) for parameter in trainer.network.module.parameters()}


def folder_of(folders: Path, dataset: PreprocessedDataset, name: str) -> Path:
    return folders / "results" / dataset.name / f"{name}__nnUNetPlans__{dataset.configuration}" / "fold_0"


def outcome(folder: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(folder / "checkpoint_final.pth")
    curves = {key: repr(value) for key, value in checkpoint["logging"].items() if "timestamps" not in key}
    record = checkpoint["init_args"]["sikd"]
    record.pop("teacher_pseudo_dice")  # after --c on other validation batches
    return {"weights": weights_hash(checkpoint["network_weights"]), "curves": curves, "record": record}

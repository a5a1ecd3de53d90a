from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetv2_sikd.distillation.checkpoint import number_of_parameters, read_checkpoint, weights_hash
from nnunetv2_sikd.errors import SIKDError
from tests.helpers import make_dataset_json, make_network, make_plans


def make_checkpoint() -> dict[str, Any]:
    """What nnUNetTrainer.save_checkpoint writes, after two epochs."""
    network = make_network(2)
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, momentum=0.99, nesterov=True)
    sum(output.sum() for output in network(torch.randn(1, 1, 32, 32))).backward()
    optimizer.step()
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.nanmean([0.25, np.nan])],
            "ema_fg_dice": [np.float64(0.5), np.float32(0.5)],
            "dice_per_class_or_region": [[np.float32(0.1), np.float16(0.5)], [np.float64(0.2), np.nan]],
            "train_losses": [np.float32(1.5), np.float32(0.5)],
            "val_losses": [np.array(1.25)[()], np.float32(0.5)],
            "lrs": [0.01, np.float64(0.009)],
            "epoch_start_timestamps": [1.7e9, 1.7e9 + 1],
            "epoch_end_timestamps": [1.7e9, np.int64(3)],
        },
        "_best_ema": np.float64(0.5),
        "current_epoch": 2,
        "init_args": {
            "plans": make_plans("Dataset901_Tiny"),
            "configuration": "2d",
            "fold": 0,
            "dataset_json": make_dataset_json(regions=True, ignore=True, channels=1, num_cases=5),
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer_SIKDTeacher",
        "inference_allowed_mirroring_axes": (0, 1),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint_final.pth"
    torch.save(make_checkpoint(), file)
    return file


def assert_refused(file: Path, reason: str) -> None:
    with pytest.raises(SIKDError, match=reason) as raised:
        read_checkpoint(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


class TestReading:
    def test_stock_checkpoint(self, file: Path) -> None:
        checkpoint = read_checkpoint(file)
        stock = torch.load(file, weights_only=False)
        assert checkpoint.keys() == stock.keys()
        assert weights_hash(checkpoint["network_weights"]) == weights_hash(stock["network_weights"])
        assert checkpoint["init_args"] == stock["init_args"]
        assert repr(checkpoint["logging"]) == repr(stock["logging"])

    def test_safe_types_are_allowed_only_while_reading(self, file: Path) -> None:
        before = set(torch.serialization.get_safe_globals())
        read_checkpoint(file)
        assert set(torch.serialization.get_safe_globals()) == before

    @pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
    def test_truncated(self, file: Path, kept: float) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * kept)])
        assert_refused(file, "damaged")

    @pytest.mark.parametrize("content", ["", "this is no checkpoint\n", "version https://git-lfs.github.com/spec/v1\n"])
    def test_text_file(self, file: Path, content: str) -> None:
        file.write_text(content)
        assert_refused(file, "damaged")

    def test_missing(self, tmp_path: Path) -> None:
        assert_refused(tmp_path / "checkpoint_final.pth", "not there")

    def test_folder(self, tmp_path: Path) -> None:
        assert_refused(tmp_path, "not there")

    @pytest.mark.parametrize("missing", ["network_weights", "init_args", "trainer_name"])
    def test_other_content(self, tmp_path: Path, missing: str) -> None:
        content = make_checkpoint()
        del content[missing]
        torch.save(content, tmp_path / "other.pth")
        assert_refused(tmp_path / "other.pth", f"is no nnU-Net checkpoint.*{missing}")

    @pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"weights": torch.zeros(3)}, None], ids=type)
    def test_no_checkpoint_at_all(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "other.pth")
        assert_refused(tmp_path / "other.pth", "is no nnU-Net checkpoint")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


class TestBomb:
    @pytest.mark.parametrize("place", ["logging", "trainer_name", "network_weights", "init_args"])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_is_refused_and_not_executed(self, tmp_path: Path, place: str, zipped: bool) -> None:
        file, crater = tmp_path / "checkpoint_final.pth", tmp_path / "crater"
        checkpoint = {**make_checkpoint(), place: Bomb(crater)}
        torch.save(checkpoint, file, _use_new_zipfile_serialization=zipped)
        assert_refused(file, "no checkpoint that loads safely")
        assert not crater.exists()

    def test_would_have_gone_off(self, tmp_path: Path) -> None:
        torch.save({"logging": Bomb(tmp_path / "crater")}, tmp_path / "bomb.pth")
        torch.load(tmp_path / "bomb.pth", weights_only=False)
        assert (tmp_path / "crater").is_dir()


def test_each_weight_counts_once(tmp_path: Path) -> None:
    torch.save(make_checkpoint(), tmp_path / "checkpoint_final.pth")
    weights = read_checkpoint(tmp_path / "checkpoint_final.pth")["network_weights"]
    assert number_of_parameters(weights) == sum(parameter.numel() for parameter in make_network(2).parameters())


class TestWeightsHash:
    weights = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3), "c": torch.empty(0)}  # noqa: RUF012

    def test_is_reproducible_across_versions(self) -> None:
        assert weights_hash({"a": torch.tensor([1.0, -2.0])}) == (
            "a433b767e690d372d1674fdc14768e8172eb65b31128a8843cf677ab1911cb19"
        )

    def test_order_does_not_count(self) -> None:
        assert weights_hash(dict(reversed(self.weights.items()))) == weights_hash(self.weights)

    def test_memory_layout_does_not_count(self) -> None:
        tensor = torch.arange(6.0).reshape(2, 3)
        assert weights_hash({"a": tensor}) == weights_hash({"a": tensor.t().contiguous().t()})
        assert weights_hash({"a": tensor}) == weights_hash({"a": torch.nn.Parameter(tensor)})

    @pytest.mark.parametrize(
        "change",
        [
            {"a": torch.tensor([[1.0, np.nextafter(np.float32(2), np.float32(3))]])},
            {"a": torch.tensor([1.0, 2.0])},
            {"a": torch.tensor([[1.0], [2.0]])},
            {"a": torch.tensor([[1.0, 2.0]], dtype=torch.float64)},
            {"a": torch.tensor([[1.0, 2.0]]).view(torch.int32)},
            {"b": torch.tensor(4)},
            {"c": torch.empty(0, dtype=torch.int64)},
            {"d": torch.empty(0)},
        ],
    )
    def test_every_change_counts(self, change: dict[str, torch.Tensor]) -> None:
        assert weights_hash({**self.weights, **change}) != weights_hash(self.weights)

    def test_names_count(self) -> None:
        renamed = {{"a": "z"}.get(name, name): value for name, value in self.weights.items()}
        assert weights_hash(renamed) != weights_hash(self.weights)
        swapped = {**self.weights, "a": self.weights["b"], "b": self.weights["a"]}
        assert weights_hash(swapped) != weights_hash(self.weights)

    def test_bfloat16(self) -> None:
        tensor = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
        assert weights_hash({"a": tensor}) != weights_hash({"a": tensor.half()})

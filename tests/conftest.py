"""Fixtures that all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import PreprocessedDataset, make_preprocessed_dataset


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    """Tiny tensors: threads cost more than they give."""
    torch.set_num_threads(1)


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty nnU-Net folders under ``tmp_path``, named by the environment variables; returns their parent."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def dataset_2d(nnunet_folders: Path) -> PreprocessedDataset:
    """Three 2D cases with two channels and an ignore label."""
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=2, num_cases=3, channels=2, ignore=True)


@pytest.fixture
def dataset_3d(nnunet_folders: Path) -> PreprocessedDataset:
    """Two 3D cases."""
    return make_preprocessed_dataset(nnunet_folders / "preprocessed", dim=3, num_cases=2)

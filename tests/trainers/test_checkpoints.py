from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import PreprocessedDataset
from tests.trainers.conftest import STUDENT, TEACHER, MakeTrainer, finish


@pytest.mark.parametrize("name", [TEACHER, STUDENT, "nnUNetTrainer_2epochs_2iterations", "nnUNetTrainer_seed0"])
def test_a_kill_while_saving_leaves_the_old_checkpoint(
    dataset_2d: PreprocessedDataset, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trainer = make_trainer(dataset_2d, name)
    trainer.initialize()
    file = finish(trainer)
    before = file.read_bytes()

    def killed(checkpoint: Any, file: str) -> None:
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.glob("checkpoint*")] == ["checkpoint_final.pth"]


def test_checkpointing_can_be_disabled(dataset_2d: PreprocessedDataset, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(dataset_2d, TEACHER)
    trainer.initialize()
    trainer.disable_checkpointing = True
    assert not finish(trainer).exists()

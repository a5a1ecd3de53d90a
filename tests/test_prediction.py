"""Prediction: whole files stay, half ones are made again, another training's are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch

from nnunetv2_sikd import prediction as module
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import file_hash
from nnunetv2_sikd.image_files import is_whole
from nnunetv2_sikd.prediction import COST_FILE, predict
from nnunetv2_sikd.training import fold_folder
from tests.helpers import PreprocessedDataset

TRAINER = "nnUNetTrainer_SIKDStudent"


def write_image(file: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((3, 8, 8), np.uint8)), str(file))


class NnUNet:
    """Predicts zeros for whatever is missing, as ``nnUNetv2_predict --continue_prediction`` does."""

    def __init__(self, folder: Path, dataset: PreprocessedDataset) -> None:
        self.dataset, self.images, self.output = dataset, folder / "images", folder / "predicted"
        self.predicted: list[str] = []
        self.stops_after: int | None = None
        self.images.mkdir()
        for case in ("a", "b", "c"):
            for channel in range(2):
                write_image(self.images / f"{case}_{channel:04d}.nii.gz")
        planned = module.PlannedConfiguration.load(dataset.name, "2d", "nnUNetPlans")
        self.model = fold_folder(planned, TRAINER, 0)

    def train(self, weights: str = "weights") -> None:
        self.model.mkdir(parents=True, exist_ok=True)
        checkpoint = {"network_weights": {weights: torch.zeros(1)}, "init_args": {}, "trainer_name": TRAINER}
        torch.save(checkpoint, self.model / "checkpoint_final.pth")

    def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        assert "--continue_prediction" in command
        cases = [file.name.removesuffix("_0000.nii.gz") for file in sorted(self.images.glob("*_0000.nii.gz"))]
        missing = [case for case in cases if not (self.output / f"{case}.nii.gz").exists()]
        for case in missing[: self.stops_after]:
            write_image(self.output / f"{case}.nii.gz")
            self.predicted.append(case)
        return 0 if self.stops_after is None else 1

    def predict(self, fold: int = 0, images: Path | None = None, *, overwrite: bool = False) -> list[str]:
        """Predict; the cases for which nnU-Net had to."""
        self.predicted.clear()
        options: dict[str, Any] = {"fold": fold, "trainer": TRAINER, "device": "cpu", "overwrite": overwrite}
        predict(images or self.images, self.output, self.dataset.name, **options)
        return self.predicted


@pytest.fixture
def nnunet(dataset_2d: PreprocessedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NnUNet:
    fake = NnUNet(tmp_path, dataset_2d)
    monkeypatch.setattr(module, "run", fake.run)
    fake.train()
    return fake


def test_once_with_its_cost(nnunet: NnUNet) -> None:
    assert nnunet.predict() == ["a", "b", "c"]
    cost = json.loads((nnunet.output / COST_FILE).read_text())
    assert (cost["cases"], cost["device"]) == (3, "cpu")
    assert cost["seconds"] >= 0
    assert nnunet.predict() == []
    assert json.loads((nnunet.output / COST_FILE).read_text()) == cost


def test_half_a_prediction_is_made_again(nnunet: NnUNet) -> None:
    nnunet.predict()
    file = nnunet.output / "b.nii.gz"
    file.write_bytes(file.read_bytes()[:-9])
    assert nnunet.predict() == ["b"]
    assert is_whole(file)


def test_cut_prediction_is_told_and_continued(nnunet: NnUNet) -> None:
    nnunet.stops_after = 1
    with pytest.raises(SIKDError, match=r"prediction failed for 2 of 3 cases \(exit status 1, see above\)"):
        nnunet.predict()
    nnunet.stops_after = None
    assert nnunet.predict() == ["b", "c"]
    assert json.loads((nnunet.output / COST_FILE).read_text())["cases"] == 2


def test_killed_before_the_cost_was_written(nnunet: NnUNet) -> None:
    nnunet.predict()
    (nnunet.output / COST_FILE).unlink()
    assert nnunet.predict() == []
    assert json.loads((nnunet.output / COST_FILE).read_text())["seconds"] is None


def test_another_training_or_other_images_are_refused(nnunet: NnUNet, tmp_path: Path) -> None:
    nnunet.predict()
    other = tmp_path / "other_images"
    other.mkdir()
    for channel in range(2):
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(np.ones((3, 8, 8), np.uint8)), str(other / f"a_{channel:04d}.nii.gz")
        )
    with pytest.raises(SIKDError, match="holds predictions of another training or of other images"):
        nnunet.predict(images=other)
    nnunet.train("other weights")
    with pytest.raises(SIKDError, match="holds predictions of another training or of other images"):
        nnunet.predict()
    nnunet.train()
    assert nnunet.predict() == []


def test_predictions_of_another_training_are_replaced_when_asked_to(nnunet: NnUNet, tmp_path: Path) -> None:
    nnunet.predict()
    (nnunet.output / "notes.txt").write_text("precious")
    for case in ("c", "b"):  # away, one after the other
        for channel in range(2):
            (nnunet.images / f"{case}_{channel:04d}.nii.gz").rename(tmp_path / f"{case}_{channel:04d}.nii.gz")
        assert nnunet.predict() == []
    for channel in range(2):
        (tmp_path / f"b_{channel:04d}.nii.gz").rename(nnunet.images / f"b_{channel:04d}.nii.gz")
    nnunet.train("other weights")
    nnunet.stops_after = 1
    with pytest.raises(SIKDError, match="prediction failed for 1 of 2 cases"):
        nnunet.predict(overwrite=True)
    assert not (nnunet.output / COST_FILE).exists()
    nnunet.stops_after = None
    assert nnunet.predict(overwrite=True) == ["b"]
    assert not (nnunet.output / "c.nii.gz").exists()  # the other training's, too
    assert nnunet.predict(overwrite=True) == []
    assert (nnunet.output / "notes.txt").read_text() == "precious"


def test_what_cannot_be_predicted_replaces_nothing(nnunet: NnUNet) -> None:
    nnunet.predict()
    before = {file: file.read_bytes() for file in nnunet.output.iterdir()}
    nnunet.train("other weights")
    (nnunet.images / "b_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(SIKDError, match="b_0000"):
        nnunet.predict(overwrite=True)
    assert {file: file.read_bytes() for file in nnunet.output.iterdir()} == before


def test_nothing_outside_of_the_folder_is_removed(nnunet: NnUNet) -> None:
    nnunet.predict()
    precious = nnunet.output.parent / "precious.nii.gz"
    precious.write_text("precious")
    file = nnunet.output / "predicted_with.json"
    file.write_text(json.dumps({"image_sha256": {"../precious": [], "a": []}}))
    assert nnunet.predict(overwrite=True) == ["a", "b", "c"]
    assert precious.read_text() == "precious"


def test_files_of_others_are_not_overwritten(nnunet: NnUNet) -> None:
    nnunet.output.mkdir()
    (nnunet.output / "a.nii.gz").write_text("precious")
    with pytest.raises(SIKDError, match="holds files that this command did not write"):
        nnunet.predict(overwrite=True)
    assert (nnunet.output / "a.nii.gz").read_text() == "precious"


def test_the_same_weights_in_another_file_are_the_same_training(nnunet: NnUNet) -> None:
    nnunet.predict()
    checkpoint = torch.load(nnunet.model / "checkpoint_final.pth")
    torch.save({**checkpoint, "logging": {"epoch_end_timestamps": [1.0]}}, nnunet.model / "checkpoint_final.pth")
    assert nnunet.predict() == []


def test_an_image_exchanged_under_its_name_is_predicted_again(nnunet: NnUNet) -> None:
    nnunet.predict()
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.ones((3, 8, 8), np.uint8)), str(nnunet.images / "b_0001.nii.gz")
    )
    nnunet.stops_after = 0
    with pytest.raises(SIKDError, match="prediction failed for 1 of 1 cases"):
        nnunet.predict()
    assert not (nnunet.output / "b.nii.gz").exists()  # of the image that was
    nnunet.stops_after = None
    assert nnunet.predict() == ["b"]
    assert nnunet.predict() == []


def test_an_image_that_was_away_and_comes_back_changed_is_predicted_again(nnunet: NnUNet, tmp_path: Path) -> None:
    nnunet.predict()
    for channel in range(2):
        (nnunet.images / f"b_{channel:04d}.nii.gz").rename(tmp_path / f"b_{channel:04d}.nii.gz")
    assert nnunet.predict() == []
    for channel in range(2):
        SimpleITK.WriteImage(
            SimpleITK.GetImageFromArray(np.ones((3, 8, 8), np.uint8)), str(nnunet.images / f"b_{channel:04d}.nii.gz")
        )
    assert nnunet.predict() == ["b"]


def test_a_spacing_beside_the_image_belongs_to_it(nnunet: NnUNet) -> None:
    nnunet.predict()
    (nnunet.images / "c.json").write_text('{"spacing": [1, 1, 2]}')
    assert nnunet.predict() == ["c"]


def test_images_that_were_moved_are_the_same(nnunet: NnUNet, tmp_path: Path) -> None:
    nnunet.predict()
    moved = nnunet.images.rename(tmp_path / "moved")
    assert nnunet.predict(images=moved) == []


def test_predictions_of_an_earlier_version_stay(nnunet: NnUNet) -> None:
    nnunet.predict()
    file = nnunet.output / "predicted_with.json"
    record = json.loads(file.read_text())
    del record["image_sha256"], record["weights_sha256"]
    record["checkpoint_sha256"] = file_hash(nnunet.model / "checkpoint_final.pth")
    file.write_text(json.dumps(record))
    assert nnunet.predict() == []
    assert {"image_sha256", "weights_sha256"} <= set(json.loads(file.read_text()))
    file.write_text(json.dumps({**record, "checkpoint_sha256": "another"}))
    with pytest.raises(SIKDError, match="holds predictions of another training"):
        nnunet.predict()


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]"])
def test_damaged_claim_is_refused(nnunet: NnUNet, content: str) -> None:
    nnunet.predict()
    (nnunet.output / "predicted_with.json").write_text(content)
    with pytest.raises(SIKDError, match="holds predictions of another training"):
        nnunet.predict()


def test_files_of_others_are_left_alone(nnunet: NnUNet) -> None:
    nnunet.output.mkdir()
    (nnunet.output / "a.nii.gz").write_text("precious")
    with pytest.raises(SIKDError, match="holds files that this command did not write"):
        nnunet.predict()
    assert (nnunet.output / "a.nii.gz").read_text() == "precious"


def test_what_is_not_there(nnunet: NnUNet, tmp_path: Path) -> None:
    with pytest.raises(
        SIKDError, match=r"has no finished training .*; run nnUNetv2_sikd train -d .* -f 1 -tr nnUNetTr"
    ):
        nnunet.predict(fold=1)
    with pytest.raises(SIKDError, match="nowhere: no such folder of images"):
        nnunet.predict(images=tmp_path / "nowhere")
    nnunet.output.write_text("a file")
    with pytest.raises(SIKDError, match="predicted: is no folder, so nothing can be written there"):
        nnunet.predict()


def test_the_second_stage_of_a_cascade_is_refused(tmp_path: Path, dataset_2d: PreprocessedDataset) -> None:
    dataset_2d.become_second_stage()
    with pytest.raises(SIKDError, match="-prev_stage_predictions"):
        predict(tmp_path, tmp_path / "out", dataset_2d.name, fold=0, trainer=TRAINER, device="cpu")
    assert not (tmp_path / "out").exists()

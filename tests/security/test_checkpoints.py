"""Checkpoints from others: nothing in them is executed, imported, or grows when it is read."""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunetv2_sikd import training
from nnunetv2_sikd.commands.main import main
from nnunetv2_sikd.distillation import teacher
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.prediction import predict
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from tests.distillation.test_checkpoint import make_checkpoint
from tests.helpers import PreprocessedDataset
from tests.security.helpers import Bomb
from tests.trainers.conftest import STUDENT, MakeTrainer, finish, make_trainer  # noqa: F401


def assert_refused(file: Path, reason: str) -> None:
    with pytest.raises(SIKDError, match=reason) as raised:
        read_checkpoint(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


class TestNumpy:
    """``numpy.dtype``, allowed as it is, lets a file say which bytes are pointers to objects."""

    @pytest.mark.parametrize("kind", ["O", "V8", "U1000000", "S8", "M8[s]", [("a", "O")], ("f4", (10**6,))], ids=str)
    def test_only_plain_numbers(self, kind: Any, tmp_path: Path) -> None:
        file = tmp_path / "checkpoint_final.pth"
        torch.save({**make_checkpoint(), "logging": np.dtype(kind)}, file)
        assert_refused(file, "no checkpoint that loads safely")

    @pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8", "<i4", "<i8", "?", ">f8"])
    def test_numbers_keep_value_and_type(self, kind: str, tmp_path: Path) -> None:
        file, number = tmp_path / "checkpoint_final.pth", np.array([1.5], kind)[0]
        torch.save({**make_checkpoint(), "logging": number}, file)
        found = read_checkpoint(file)["logging"]
        assert found == number
        assert type(found) is type(number)

    def test_arrays_of_objects(self, tmp_path: Path) -> None:
        file, crater = tmp_path / "checkpoint_final.pth", tmp_path / "crater"
        torch.save({**make_checkpoint(), "logging": np.array([Bomb(crater)], object)}, file)
        assert_refused(file, "no checkpoint that loads safely")
        assert not crater.exists()


class TestGrowth:
    def test_compressed(self, tmp_path: Path) -> None:
        plain, file = tmp_path / "plain.pth", tmp_path / "checkpoint_final.pth"
        torch.save({**make_checkpoint(), "logging": torch.zeros(10**7)}, plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                target.writestr(name, source.read(name))
        assert file.stat().st_size < plain.stat().st_size / 100
        torch.load(file, weights_only=False)  # would be read
        assert_refused(file, "compressed")

    def test_one_content_under_many_names(self, tmp_path: Path) -> None:
        file = tmp_path / "checkpoint_final.pth"
        torch.save(make_checkpoint(), file)
        with zipfile.ZipFile(file, "a") as archive:
            largest = max(archive.infolist(), key=lambda member: member.file_size)
            for number in range(100):
                again = zipfile.ZipInfo(f"archive/data/9{number}")
                again.CRC = largest.CRC
                again.file_size = again.compress_size = largest.file_size
                again.header_offset = largest.header_offset
                archive.filelist.append(again)
            archive._didModify = True  # type: ignore[attr-defined]
        assert_refused(file, "declares more content than the file has")

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.zeros(1).expand(10**12),
            torch.zeros(2, 2).to_sparse(),
            torch.empty(10**12, device="meta"),
        ],
        ids=["repeated", "sparse", "meta"],
    )
    def test_tensor_without_memory_of_its_own(self, tensor: torch.Tensor, tmp_path: Path) -> None:
        file = tmp_path / "checkpoint_final.pth"
        content = make_checkpoint()
        content["network_weights"]["more"] = tensor
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(content, file)
        assert_refused(file, "without memory of its own|no checkpoint that loads safely")

    @pytest.mark.parametrize("place", ["logging", "trainer_name", "init_args"])
    def test_lists_of_lists_of_one_list(self, place: str, tmp_path: Path) -> None:
        file, many = tmp_path / "checkpoint_final.pth", ["x"]
        for _ in range(30):
            many = [many] * 10  # type: ignore[list-item]
        torch.save({**make_checkpoint(), place: many}, file)
        assert_refused(file, "holds more values than a checkpoint can")

    def test_list_in_itself(self, tmp_path: Path) -> None:
        file, endless = tmp_path / "checkpoint_final.pth", []
        endless.append(endless)
        torch.save({**make_checkpoint(), "logging": endless}, file)
        assert_refused(file, "holds more values than a checkpoint can")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        *((part, [1]) for part in ("network_weights", "init_args", "trainer_name")),
        ("network_weights", {"a": 1}),
        ("network_weights", {1: torch.zeros(1)}),
        *(("init_args", {part: "/etc/passwd"}) for part in ("plans", "dataset_json", "sikd")),
    ],
)
def test_parts_of_another_kind(part: str, value: Any, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_final.pth"
    torch.save({**make_checkpoint(), part: value}, file)
    assert_refused(file, rf"is no nnU-Net checkpoint \({part}")


class TestTeacher:
    @pytest.fixture
    def student(self, make_trainer: MakeTrainer, dataset_2d: PreprocessedDataset) -> Any:  # noqa: F811
        return make_trainer(dataset_2d, STUDENT)

    @pytest.fixture
    def file(self, student: Any, make_trainer: MakeTrainer, dataset_2d: PreprocessedDataset) -> Path:  # noqa: F811
        trained = make_trainer(dataset_2d, student.teacher_class.__name__)
        trained.initialize()
        return finish(trained)

    def test_bomb_is_refused(self, student: Any, file: Path, tmp_path: Path) -> None:
        content = torch.load(file, weights_only=False)
        torch.save({**content, "logging": Bomb(tmp_path / "crater")}, file)
        student.initialize()
        with pytest.raises(SIKDError, match="no checkpoint that loads safely"):
            teacher.load_teacher(student, student.teacher_class)
        assert not (tmp_path / "crater").exists()

    def test_class_that_its_plans_name_is_never_imported(
        self, student: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "hostile_module.py").write_text("from torch.nn import Module as Network\nconv = Network\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        content = torch.load(file, weights_only=False)
        architecture = content["init_args"]["plans"]["configurations"]["2d"]["architecture"]
        architecture["network_class_name"] = "hostile_module.Network"
        architecture["arch_kwargs"]["conv_op"] = "hostile_module.conv"
        torch.save(content, file)
        student.initialize()
        with pytest.raises(SIKDError, match="plans changed since in architecture"):
            teacher.load_teacher(student, student.teacher_class)
        assert "hostile_module" not in sys.modules
        # nnU-Net, given these plans, imports it.
        with pytest.raises(TypeError):
            get_network_from_plans("hostile_module.Network", {}, [], 1, 2)
        assert sys.modules.pop("hostile_module")


class TestBeforeNnUNetLoadsIt:
    """nnU-Net loads checkpoints with pickle: this package's commands look first."""

    @pytest.fixture
    def planned(self, dataset_2d: PreprocessedDataset) -> PlannedConfiguration:
        return PlannedConfiguration.load(dataset_2d.name, "2d", "nnUNetPlans")

    def bomb(self, planned: PlannedConfiguration, name: str) -> Path:
        folder = training.fold_folder(planned, "nnUNetTrainer", 0)
        folder.mkdir(parents=True)
        torch.save({**make_checkpoint(), "logging": Bomb(folder / "crater")}, folder / name)
        return folder

    @pytest.mark.parametrize("name", ["checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"])
    def test_training_that_continues(
        self, name: str, planned: PlannedConfiguration, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.bomb(planned, name)
        monkeypatch.setattr(training, "run", lambda *_: pytest.fail("nnU-Net was started"))
        with pytest.raises(SIKDError, match=f"{name}: .*no checkpoint that loads safely"):
            training.train_stock(planned, "nnUNetTrainer", 0, [])

    def test_prediction(self, planned: PlannedConfiguration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bomb(planned, "checkpoint_final.pth")
        images = tmp_path / "images"
        images.mkdir()
        for channel in range(2):
            (images / f"a_{channel:04d}.nii.gz").touch()
        monkeypatch.setattr("nnunetv2_sikd.prediction.run", lambda *_: pytest.fail("nnU-Net was started"))
        with pytest.raises(SIKDError, match=r"checkpoint_final\.pth: .*no checkpoint that loads safely"):
            predict(images, tmp_path / "out", planned.plans.dataset_name, fold=0, trainer="nnUNetTrainer", device="cpu")

    def test_doctor(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good, bad = tmp_path / "good.pth", tmp_path / "bad.pth"
        torch.save(make_checkpoint(), good)
        torch.save({**make_checkpoint(), "logging": Bomb(tmp_path / "crater")}, bad)
        assert main(["doctor", "--checkpoint", str(good)]) == 0
        assert main(["doctor", "--checkpoint", str(good), str(bad)]) == 1
        told = capsys.readouterr().out.splitlines()
        assert [line[:6] for line in told] == ["[ ok ]", "[ ok ]", "[FAIL]"]
        assert not (tmp_path / "crater").exists()

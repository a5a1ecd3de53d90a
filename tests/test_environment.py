from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch.multiprocessing.spawn import ProcessRaisedException

from nnunetv2_sikd.environment import require_folders, stock_command, trainer_folder, with_trainers
from nnunetv2_sikd.errors import DEBUG_VARIABLE, SIKDError, tell_in_one_line
from nnunetv2_sikd.trainers import variants

VARIABLE = "nnUNet_extTrainer"


class TestTellInOneLine:
    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (SIKDError("a.txt: wrong; mend it"), "Error: a.txt: wrong; mend it\n"),
            (
                ProcessRaisedException(
                    "\n-- Process 1 terminated\nTraceback\nnnunetv2_sikd.errors.SIKDError: a.txt: wrong; mend it\n",
                    1,
                    2,
                ),
                "Error: a.txt: wrong; mend it\n",
            ),
            (ProcessRaisedException("\nTraceback\nValueError: 3\n", 1, 2), "others"),
            (ValueError("nnunetv2_sikd.errors.SIKDError: 3"), "others"),
        ],
        ids=["here", "of several GPUs", "another there", "another"],
    )
    def test_tells(
        self, error: BaseException, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "excepthook", lambda *_: print("others", end="", file=sys.stderr))
        tell_in_one_line.__wrapped__()
        sys.excepthook(type(error), error, None)
        assert capsys.readouterr().err == told
        monkeypatch.setenv(DEBUG_VARIABLE, "1")
        sys.excepthook(type(error), error, None)
        assert capsys.readouterr().err == "others"


class TestWithTrainers:
    def test_names_our_folder(self) -> None:
        assert with_trainers({}) == {VARIABLE: str(trainer_folder())}

    def test_keeps_other_folders_and_variables(self) -> None:
        environment = {VARIABLE: os.pathsep.join(["/a", "/b c"]), "HOME": "/home"}
        expected = os.pathsep.join([str(trainer_folder()), "/a", "/b c"])
        assert with_trainers(environment) == {VARIABLE: expected, "HOME": "/home"}

    @pytest.mark.parametrize("folder", [trainer_folder().parent / "trainers", trainer_folder().parent.parent])
    def test_drops_folders_from_which_trainers_cannot_be_pickled(self, folder: Path) -> None:
        assert with_trainers({VARIABLE: str(folder)})[VARIABLE] == str(trainer_folder())

    def test_adds_once(self) -> None:
        once = with_trainers({VARIABLE: "/a"})
        assert with_trainers(once) == once

    @pytest.mark.parametrize("empty", ["", " ", os.pathsep])
    def test_drops_empty_entries(self, empty: str) -> None:
        assert with_trainers({VARIABLE: empty})[VARIABLE] == str(trainer_folder())

    def test_starts_from_this_process_and_leaves_it_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, "/elsewhere")
        monkeypatch.setenv("SOME_VARIABLE", "kept")
        environment = with_trainers()
        assert environment["SOME_VARIABLE"] == "kept"
        assert environment[VARIABLE] == os.pathsep.join([str(trainer_folder()), "/elsewhere"])
        assert os.environ[VARIABLE] == "/elsewhere"
        given = {"A": "1"}
        with_trainers(given)
        assert given == {"A": "1"}


class TestLookUp:
    def test_folder_holds_one_module_and_is_no_package(self) -> None:
        modules = [file.name for file in trainer_folder().iterdir() if file.suffix == ".py"]
        assert modules == ["nnunetv2_sikd_trainers.py"]

    @pytest.mark.parametrize("name", variants.shipped_trainers())
    def test_gives_the_very_class(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, with_trainers({})[VARIABLE])
        found = recursive_find_trainer_class_by_name(name)
        assert found is getattr(variants, name)
        assert pickle.loads(pickle.dumps(found)) is found
        # nnU-Net drops the modules of the folder afterwards; ours must stay.
        assert sys.modules["nnunetv2_sikd.trainers.variants"] is variants

    def test_names_outside_the_list_are_found_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, with_trainers({})[VARIABLE])
        name = "nnUNetTrainer_SIKDStudent_alpha1p75_7epochs_9iterations"
        assert recursive_find_trainer_class_by_name(name) is getattr(variants, name)

    def test_unknown_names_stay_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, with_trainers({})[VARIABLE])
        with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer"):
            recursive_find_trainer_class_by_name("nnUNetTrainer_SIKDStudent_alphaOne")

    def test_trainers_of_other_folders_are_still_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_trainer.py").write_text(
            "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
            "class nnUNetTrainer_Mine(nnUNetTrainer):\n    pass\n"
        )
        monkeypatch.setenv(VARIABLE, with_trainers({VARIABLE: str(tmp_path)})[VARIABLE])
        assert recursive_find_trainer_class_by_name("nnUNetTrainer_Mine").__name__ == "nnUNetTrainer_Mine"
        ours = "nnUNetTrainer_SIKDTeacher"
        assert recursive_find_trainer_class_by_name(ours) is getattr(variants, ours)

    def test_nnunet_s_own_trainers_come_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, with_trainers({})[VARIABLE])
        assert recursive_find_trainer_class_by_name("nnUNetTrainer_5epochs").__module__.startswith("nnunetv2.")


class TestRequireFolders:
    @pytest.mark.parametrize("value", [None, ""])
    def test_not_set(self, nnunet_folders: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        if value is None:
            monkeypatch.delenv("nnUNet_results")
        else:
            monkeypatch.setenv("nnUNet_results", value)
        require_folders("nnUNet_raw")
        with pytest.raises(SIKDError, match=r"nnUNet_results is not set.*export nnUNet_results="):
            require_folders("nnUNet_raw", "nnUNet_results")

    def test_no_folder(self, nnunet_folders: Path) -> None:
        (nnunet_folders / "raw").rmdir()
        (nnunet_folders / "raw").touch()
        with pytest.raises(SIKDError, match=f"{nnunet_folders / 'raw'}: the environment variable nnUNet_raw"):
            require_folders("nnUNet_raw")


class TestStockCommand:
    def test_is_of_this_installation(self) -> None:
        command = Path(stock_command("nnUNetv2_train"))
        assert command.is_file()
        assert os.access(command, os.X_OK)

    def test_missing(self) -> None:
        with pytest.raises(SIKDError, match="nnUNetv2_fly is not installed"):
            stock_command("nnUNetv2_fly")

"""What Windows does otherwise, played on this system: processes, open files, names, text."""

from __future__ import annotations

import builtins
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from nnunetv2_sikd import files, prediction, processes, steps
from nnunetv2_sikd.benchmark.specification import Specification
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from nnunetv2_sikd.trainers import cost, variants
from tests.helpers import make_plans

RESERVED = ["con", "NUL", "aux", "COM1", "lpt9"]


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This package on Windows, as far as it asks; without what Python has on POSIX systems alone."""
    monkeypatch.setattr(sys, "platform", "win32")
    for module, name in ((os, "killpg"), (os, "register_at_fork"), (os, "getppid"), (signal, "SIGKILL")):
        monkeypatch.delattr(module, name, raising=False)
    real_import = builtins.__import__

    def import_(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in ("resource", "fcntl", "pwd", "grp", "termios"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", import_)
    yield
    monkeypatch.undo()


class TestProcesses:
    @pytest.mark.usefixtures("windows")
    def test_modules_can_be_imported(self) -> None:
        for module in (processes, steps, prediction, cost, files):
            runpy.run_path(str(module.__file__))  # beside the one that is imported

    @pytest.mark.usefixtures("windows")
    def test_a_command_runs_and_its_status_is_returned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "stock_command", lambda name: name)
        assert processes.run([sys.executable, "-c", "raise SystemExit(3)"]) == 3

    @pytest.mark.usefixtures("windows")
    def test_a_command_is_ended_with_its_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "stock_command", lambda name: name)
        process = processes.start([sys.executable, "-c", "import time; time.sleep(600)"])
        ended: list[list[str]] = []

        def taskkill(command: list[str], **options: Any) -> None:
            ended.append(command)
            os.kill(process.pid, 15)

        monkeypatch.setattr(subprocess, "run", taskkill)
        # Popen asks the system's own names.
        monkeypatch.setattr(process, "kill", lambda: None)
        processes.end(process)
        assert ended == [["taskkill", "/F", "/T", "/PID", str(process.pid)]]
        assert process.returncode is not None

    @pytest.mark.usefixtures("windows")
    def test_nothing_is_ended_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "stock_command", lambda name: name)
        process = processes.start([sys.executable, "-c", ""])
        process.wait()
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("its number may be another process's"))
        processes.end(process)

    @pytest.mark.usefixtures("windows")
    @pytest.mark.parametrize(
        ("code", "told"), [(3221225477, "failed (exit status 3221225477)"), (-9, "signal 9 (out of memory?)")]
    )
    def test_exit_status(self, code: int, told: str) -> None:
        assert told in steps._ending(code)

    @pytest.mark.usefixtures("windows")
    def test_commands_are_shown_as_its_shell_takes_them(self) -> None:
        command = ["nnUNetv2_predict", "-i", r"C:\Users\Zoë B\images"]
        assert processes.as_typed(command) == r'nnUNetv2_predict -i "C:\Users\Zoë B\images"'

    def test_commands_are_shown_as_a_posix_shell_takes_them(self) -> None:
        assert processes.as_typed(["nnUNetv2_predict", "-i", "Zoë B"]) == "nnUNetv2_predict -i 'Zoë B'"

    @pytest.mark.usefixtures("windows")
    def test_no_memory_figures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cost, "_line_of", lambda *_: None)  # no /proc
        assert cost._peak_resident_mib() != cost._peak_resident_mib()  # NaN
        assert prediction._peak_memory_mb() is None


class TestOpenFiles:
    """There, a file that another program has open cannot be replaced."""

    @pytest.fixture
    def held(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Makes replacing fail as many times as its one number says."""
        left, replace = [0], os.replace

        def refuse(source: Any, target: Any) -> None:
            if left[0] > 0:
                left[0] -= 1
                raise PermissionError(13, "Access is denied", str(target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        return left

    @pytest.mark.usefixtures("windows")
    def test_waits_for_a_virus_scanner(self, tmp_path: Path, held: list[int]) -> None:
        files.write_text(tmp_path / "table.csv", "old")
        held[0] = 3
        files.write_text(tmp_path / "table.csv", "new")
        assert (tmp_path / "table.csv").read_text() == "new"
        assert os.listdir(tmp_path) == ["table.csv"]

    @pytest.mark.usefixtures("windows")
    def test_names_a_file_that_stays_open(
        self, tmp_path: Path, held: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "_PATIENCE_SECONDS", 0.2)
        files.write_text(tmp_path / "table.csv", "old")
        held[0] = 10**6
        with pytest.raises(SIKDError, match=r"table\.csv: cannot be replaced .* close the program that has it open"):
            files.write_text(tmp_path / "table.csv", "new")
        assert (tmp_path / "table.csv").read_text() == "old"
        assert os.listdir(tmp_path) == ["table.csv"]

    def test_elsewhere_a_refusal_is_final(self, tmp_path: Path, held: list[int]) -> None:
        (tmp_path / "table.csv").write_text("old")
        held[0] = 1
        with pytest.raises(PermissionError):
            files.write_text(tmp_path / "table.csv", "new")


class TestNames:
    @pytest.mark.parametrize(
        "name", [*RESERVED, "a:b", "a?", "a*b", "a|b", "<a>", "a/b", "a\\b", "a.", "a ", "", "a\n"]
    )
    def test_that_no_system_or_not_every_one_can_have(self, name: str) -> None:
        with pytest.raises(ValueError, match="no file can be named so"):
            files.check_name(name)

    @pytest.mark.parametrize("name", ["contrast", "2d_small", "null", "nnUNetPlans_2d", "Zoë", "com", "a.b"])
    def test_that_all_can_have(self, name: str) -> None:
        assert files.check_name(name) == name

    @pytest.mark.parametrize("key", RESERVED)
    def test_of_folders_of_a_benchmark(self, key: str) -> None:
        with pytest.raises(ValueError, match="on Windows, where it is a device"):
            specification(tests=[{"key": key, "dataset": 902}])
        with pytest.raises(ValueError, match="on Windows, where it is a device"):
            specification(arms={"stock": "nnUNetTrainer", key: "nnUNetTrainer_SIKDStudent"})

    def test_of_folders_that_differ_in_capitals_alone(self) -> None:
        with pytest.raises(ValueError, match="two have the same key"):
            specification(tests=[{"key": "Site", "dataset": 902}, {"key": "site", "dataset": 903}])
        with pytest.raises(ValueError, match="but for capitals"):
            specification(arms={"stock": "nnUNetTrainer", "Stock": "nnUNetTrainer_SIKDStudent"})

    @pytest.mark.parametrize(("name", "told"), [("2d:small", "leave out ':'"), ("2D", "'2d', which '2D' equals")])
    def test_of_a_derived_configuration(self, tmp_path: Path, name: str, told: str) -> None:
        file = tmp_path / "nnUNetPlans.json"
        files.write_json(file, make_plans("Dataset901_Tiny"))
        with pytest.raises(SIKDError, match=told):
            derive_configuration(file, name, "2d", batch_size=3)

    def test_of_trainers(self) -> None:
        names = [
            *variants.shipped_trainers(),
            "nnUNetTrainer_SIKDStudent_alpha0p5_teacherOnLabelMaps_DA5_seed0_5epochs",
        ]
        assert len({name.lower() for name in names}) == len(names)
        for name in names:
            folder = f"{name}__nnUNetPlans__3d_fullres"
            assert files.check_name(folder) == PureWindowsPath(folder).name


def specification(**parts: Any) -> Specification:
    return Specification.model_validate(
        {
            "title": "Tiny",
            "source": {"dataset": 901},
            "tests": [{"key": "target", "dataset": 902}],
            "arms": {"stock": "nnUNetTrainer"},
            **parts,
        }
    )


class TestText:
    def test_console_of_an_old_code_page(self, tmp_path: Path) -> None:
        """There, what cannot be shown is shown otherwise, and no command fails for it."""
        folder = tmp_path / "心"
        folder.mkdir()
        code = "import sys; from nnunetv2_sikd.commands import doctor, main; doctor._trainers = lambda: []; "
        code += "doctor._commands = lambda: []; sys.exit(main.main(['doctor']))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONIOENCODING": "cp1252", "nnUNet_raw": str(folder)},
            capture_output=True,
            check=False,
        )
        assert rb"\u5fc3 (" in done.stdout, done.stderr  # the free space behind it
        assert b"UnicodeEncodeError" not in done.stdout + done.stderr

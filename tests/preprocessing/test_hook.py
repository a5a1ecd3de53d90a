from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing import hook
from nnunetv2_sikd.preprocessing.copy import CopySpec
from nnunetv2_sikd.preprocessing.derive import derive_configuration
from nnunetv2_sikd.preprocessing.hook import write_class_averages
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from tests.helpers import PATCH_SIZES, PreprocessedDataset, make_preprocessed_dataset, read_array, save_case
from tests.preprocessing.helpers import assert_complete, scratch_folders, versions


def write(dataset: PreprocessedDataset, **options: Any) -> Path:
    return write_class_averages(dataset.name, dataset.configuration, **options)


class TestCopies:
    @pytest.mark.parametrize("fixture", ["dataset_2d", "dataset_3d"])
    def test_are_exact_and_complete(self, fixture: str, request: pytest.FixtureRequest) -> None:
        dataset: PreprocessedDataset = request.getfixturevalue(fixture)
        assert write(dataset) == dataset.copies
        assert_complete(dataset)

    def test_read_as_nnunet_s_own(self, dataset_2d: PreprocessedDataset) -> None:
        folder = str(write(dataset_2d))
        assert infer_dataset_class(folder) is nnUNetDatasetBlosc2
        copies, sources = nnUNetDatasetBlosc2(folder), nnUNetDatasetBlosc2(str(dataset_2d.source))
        assert copies.identifiers == sources.identifiers == list(dataset_2d.cases)
        for case in dataset_2d.cases:
            image, label, previous, properties = copies.load_case(case)
            source_image, source_label, _, source_properties = sources.load_case(case)
            assert image.shape == source_image.shape
            assert previous is None
            np.testing.assert_array_equal(label[:], source_label[:])
            assert pickle.dumps(properties) == pickle.dumps(source_properties)

    def test_ignore_label_of_regions_is_averaged_apart(self, nnunet_folders: Path) -> None:
        dataset = make_preprocessed_dataset(
            nnunet_folders / "preprocessed", dim=3, regions=True, ignore=True, num_cases=1
        )
        write(dataset)
        assert_complete(dataset)
        # Background with -1, two disjoint classes (not the two overlapping regions), and what is ignored.
        assert len(np.unique(read_array(dataset.copies / "case_00.b2nd"))) == 4

    def test_data_set_by_id(self, dataset_2d: PreprocessedDataset) -> None:
        assert write_class_averages(901) == dataset_2d.copies


class TestHow:
    """What a configuration says of its copies is read without nnU-Net's classes, whose import takes seconds."""

    @pytest.mark.parametrize("regions", [False, True])
    @pytest.mark.parametrize("ignore", [False, True])
    def test_is_what_nnunet_reads(self, nnunet_folders: Path, regions: bool, ignore: bool) -> None:
        dataset = make_preprocessed_dataset(
            nnunet_folders / "preprocessed", dim=2, regions=regions, ignore=ignore, num_cases=1
        )
        derive_configuration(dataset.folder / "nnUNetPlans.json", "small", "2d", patch_size=[16, 8])
        planned = PlannedConfiguration.load(dataset.name, "small", "nnUNetPlans")
        spec, labels = hook.copy_spec(planned), planned.label_manager
        assert spec.ignore_label == labels.ignore_label
        assert list(spec.labels) == [*labels.all_labels, *([labels.ignore_label] if ignore else [])]
        assert list(spec.patch_size) == planned.configuration.patch_size == [16, 8]
        assert spec.source.name == planned.configuration.data_identifier

    def test_needs_no_torch(self, dataset_2d: PreprocessedDataset) -> None:
        code = "import sys; from nnunetv2_sikd import write_class_averages as write; "
        code += f"write('{dataset_2d.name}', '2d'); sys.exit('torch' in sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=300)
        assert ended.returncode == 0, ended.stderr.decode()
        assert_complete(dataset_2d)


class TestSecondCall:
    def test_does_nothing(self, dataset_2d: PreprocessedDataset) -> None:
        write(dataset_2d)
        before = versions(dataset_2d.copies)
        write(dataset_2d)
        assert len(before) == 3
        assert versions(dataset_2d.copies) == before

    def test_of_a_finished_folder_takes_no_lock(
        self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(dataset_2d)

        def refuse(*_: Any) -> None:
            raise PermissionError("read-only")

        monkeypatch.setattr(hook, "FileLock", refuse)
        assert write(dataset_2d) == dataset_2d.copies

    def test_overwrites_if_asked(self, dataset_2d: PreprocessedDataset) -> None:
        write(dataset_2d)
        before = versions(dataset_2d.copies)
        write(dataset_2d, overwrite=True)
        after = versions(dataset_2d.copies)
        assert all(after[name] != before[name] for name in before)
        assert_complete(dataset_2d)

    def test_makes_anew_only_what_changed(self, dataset_2d: PreprocessedDataset) -> None:
        write(dataset_2d)
        before = versions(dataset_2d.copies)
        change_source(dataset_2d, "case_01")
        os.utime(dataset_2d.source / "case_02.b2nd", (1, 1))  # touched, not changed
        write(dataset_2d)
        after = versions(dataset_2d.copies)
        assert {name for name in before if after[name] != before[name]} == {"case_01.b2nd"}
        assert_complete(dataset_2d)

    @pytest.mark.parametrize("suffix", [".b2nd", "_seg.b2nd", ".pkl"])
    def test_replaces_what_is_missing(self, dataset_2d: PreprocessedDataset, suffix: str) -> None:
        write(dataset_2d)
        (dataset_2d.copies / f"case_01{suffix}").unlink()
        write(dataset_2d)
        assert_complete(dataset_2d)

    def test_replaces_a_damaged_copy(self, dataset_2d: PreprocessedDataset) -> None:
        copy = write(dataset_2d) / "case_01.b2nd"
        copy.write_bytes(copy.read_bytes()[:-40])
        write(dataset_2d)
        assert_complete(dataset_2d)

    def test_adds_new_cases(self, dataset_2d: PreprocessedDataset) -> None:
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            (dataset_2d.source / f"case_02{suffix}").rename(dataset_2d.folder / f"later{suffix}")
        write(dataset_2d)
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            (dataset_2d.folder / f"later{suffix}").rename(dataset_2d.source / f"case_02{suffix}")
        write(dataset_2d)
        assert_complete(dataset_2d)

    def test_removes_copies_of_cases_that_are_gone(self, dataset_2d: PreprocessedDataset) -> None:
        write(dataset_2d)
        for file in dataset_2d.source.glob("case_02*"):
            file.unlink()
        write(dataset_2d)
        assert_complete(PreprocessedDataset(dataset_2d.folder, "2d", dataset_2d.cases[:2]))


def change_source(dataset: PreprocessedDataset, case: str) -> None:
    image = read_array(dataset.source / f"{case}.b2nd")
    label = read_array(dataset.source / f"{case}_seg.b2nd")
    properties = pickle.loads((dataset.source / f"{case}.pkl").read_bytes())
    save_case(dataset.source, case, image * 2, label, properties, PATCH_SIZES[2])


class Killed(BaseException):
    """Ends a run wherever it is."""


class TestInterruption:
    @pytest.mark.parametrize("steps", range(9))
    def test_at_any_step_leaves_no_wrong_copy(
        self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch, steps: int
    ) -> None:
        write(dataset_2d)
        for case in dataset_2d.cases:
            change_source(dataset_2d, case)  # so that old copies are in place, and must not pass for new
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fails_after(steps, Killed))
            with pytest.raises(Killed):
                write(dataset_2d)
        done = versions(dataset_2d.copies)
        write(dataset_2d)
        assert_complete(dataset_2d)
        kept = [name for name, version in versions(dataset_2d.copies).items() if done[name] == version]
        assert len(kept) == steps // 3  # whole copies are not made twice

    def test_full_disk_is_a_clear_error(self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fails_after(4, OSError(28, "No space left on device", "case_01.b2nd")))
            with pytest.raises(SIKDError, match=r"case_01\.b2nd.*No space left"):
                write(dataset_2d)
        assert scratch_folders(dataset_2d) == []
        write(dataset_2d)
        assert_complete(dataset_2d)

    def test_killed_process(self, dataset_2d: PreprocessedDataset) -> None:
        script = f"""
            import os, signal
            from nnunetv2_sikd.preprocessing.hook import write_class_averages
            replace, steps = os.replace, iter(range(5))
            def replace_or_die(*paths):
                if next(steps, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                replace(*paths)
            os.replace = replace_or_die
            write_class_averages("{dataset_2d.name}", "2d")
        """
        ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, timeout=300)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        assert len(scratch_folders(dataset_2d)) == 1
        assert sorted(versions(dataset_2d.copies)) == ["case_00.b2nd"]
        write(dataset_2d)
        assert_complete(dataset_2d)


def fails_after(steps: int, error: Any) -> Any:
    replace, left = os.replace, iter(range(steps))

    def replace_or_fail(*paths: Any) -> None:
        if next(left, None) is None:
            raise error
        replace(*paths)

    return replace_or_fail


@pytest.fixture
def light_processes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Processes that start at once: forked from one that has done its imports, and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nnunetv2_sikd.preprocessing.hook"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
    return context


class TestProcesses:
    def test_five_calls_at_once(self, dataset_2d: PreprocessedDataset, light_processes: Any) -> None:
        start = light_processes.Barrier(5)
        arguments = (start, dataset_2d.folder.parent, dataset_2d.name)
        processes = [light_processes.Process(target=write_at_once, args=arguments) for _ in range(5)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        assert [process.exitcode for process in processes] == [0] * 5
        assert_complete(dataset_2d)

    def test_two_workers(self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hook, "_BYTES_WORTH_A_PROCESS", 1)
        write(dataset_2d, num_processes=2)
        assert_complete(dataset_2d)

    @pytest.mark.usefixtures("light_processes")
    def test_bad_case_of_a_worker_is_named(
        self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hook, "_BYTES_WORTH_A_PROCESS", 1)
        (dataset_2d.source / "case_01.pkl").write_bytes(b"")
        with pytest.raises(SIKDError, match=f"{dataset_2d.source / 'case_01.pkl'}: damaged"):
            write(dataset_2d, num_processes=2)
        assert scratch_folders(dataset_2d) == []

    @pytest.mark.usefixtures("light_processes")
    def test_killed_worker(self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(hook, "_BYTES_WORTH_A_PROCESS", 1)
            patch.setattr(hook, "write_copy", die)
            with pytest.raises(SIKDError, match=r"was killed \(out of memory\?\).*-np"):
                write(dataset_2d, num_processes=2)
        assert scratch_folders(dataset_2d) == []
        write(dataset_2d)
        assert_complete(dataset_2d)


def write_at_once(start: Any, preprocessed: Path, name: str) -> None:
    os.environ["nnUNet_preprocessed"] = str(preprocessed)
    start.wait(300)
    write_class_averages(name, "2d", num_processes=1)


def die(spec: CopySpec, case: str, scratch: Path) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


class TestErrors:
    def test_bad_case_is_named_and_the_others_are_kept(self, dataset_2d: PreprocessedDataset) -> None:
        damaged = dataset_2d.source / "case_02.b2nd"
        content = damaged.read_bytes()
        damaged.write_bytes(content[:100])
        with pytest.raises(SIKDError, match=f"{damaged}: damaged"):
            write(dataset_2d)
        done = versions(dataset_2d.copies)
        assert sorted(done) == ["case_00.b2nd", "case_01.b2nd"]
        damaged.write_bytes(content)
        write(dataset_2d)
        assert_complete(dataset_2d)
        assert versions(dataset_2d.copies).items() >= done.items()

    def test_no_foreground_anywhere_is_an_error_each_time(self, dataset_2d: PreprocessedDataset) -> None:
        for case in dataset_2d.cases:
            remove_foreground(dataset_2d, case)
        for _ in range(2):
            with pytest.raises(SIKDError, match=f"{dataset_2d.source}: no case has any foreground"):
                write(dataset_2d)
            assert not dataset_2d.copies.exists()

    def test_a_case_without_foreground_is_told(
        self, dataset_2d: PreprocessedDataset, capsys: pytest.CaptureFixture[str]
    ) -> None:
        remove_foreground(dataset_2d, "case_01")
        write(dataset_2d)
        assert "1 of 3 cases have background only (case_01)" in capsys.readouterr().out
        assert_complete(dataset_2d)

    def test_file_in_the_folder_s_place(self, dataset_2d: PreprocessedDataset) -> None:
        dataset_2d.copies.touch()
        with pytest.raises(SIKDError, match=f"{dataset_2d.copies}: class averages cannot be written"):
            write(dataset_2d)

    def test_unknown_configuration(self, dataset_2d: PreprocessedDataset) -> None:
        with pytest.raises(SIKDError, match="has no configuration '4d'"):
            write_class_averages(dataset_2d.name, "4d")

    def test_environment_variable_missing(
        self, dataset_2d: PreprocessedDataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("nnUNet_preprocessed")
        with pytest.raises(SIKDError, match="nnUNet_preprocessed is not set"):
            write(dataset_2d)


def remove_foreground(dataset: PreprocessedDataset, case: str) -> None:
    image = read_array(dataset.source / f"{case}.b2nd")
    label = read_array(dataset.source / f"{case}_seg.b2nd")
    properties = pickle.loads((dataset.source / f"{case}.pkl").read_bytes())
    save_case(dataset.source, case, image, np.minimum(label, 0), properties, PATCH_SIZES[2])

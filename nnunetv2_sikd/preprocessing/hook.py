"""The preprocessing hook: class-averaged copies of all cases of a configuration."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from filelock import FileLock, Timeout
from nnunetv2.configuration import default_num_processes
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from tqdm import tqdm

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable
from nnunetv2_sikd.preprocessing.copy import CopySpec, has_foreground, is_current, remove_copy, write_copy
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

# Below this much (compressed) data a process of its own takes longer to start than it helps.
_BYTES_WORTH_A_PROCESS = 50 * 2**20


def write_class_averages(
    dataset: str | int,
    configuration: str = "2d",
    plans: str = "nnUNetPlans",
    *,
    num_processes: int = default_num_processes,
    overwrite: bool = False,
) -> Path:
    """Write class-averaged copies of all preprocessed cases beside them, in nnU-Net's own format.

    Only what is missing or made from data that has changed since is written. May run in several processes
    at the same time; whoever comes second waits and finds the work done.

    Args:
        dataset: Data set name or id.
        configuration: 2D configurations are averaged per slice, 3D ones per volume.
        plans: Plans identifier.
        num_processes: Processes that average at the same time, each holding one case in memory.
        overwrite: Make all copies anew.

    Returns:
        Folder of the copies: ``<data identifier>_SIKD_per_slice`` or ``..._per_volume`` in the data set's
        preprocessed folder, readable with ``nnUNetDatasetBlosc2``.

    Raises:
        SIKDError: Not planned, not preprocessed, or a case that cannot be averaged.
    """
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    return _write(copy_spec(planned), num_processes, overwrite)


def ensure_copies(trainer: Any) -> Path:
    """Make the copies of a trainer's data set and configuration as far as they are missing.

    Every rank of a distributed training calls it: the first one writes while the others wait for its lock,
    for as long as it takes (a barrier would time out). What one refuses, all refuse.

    Args:
        trainer: An ``nnUNetTrainer``.

    Returns:
        Folder of the copies.

    Raises:
        SIKDError: A case cannot be averaged, or the copies cannot be written.
    """
    from nnunetv2_sikd.ranks import refused_together  # imports torch, which nothing else here needs

    planned = PlannedConfiguration(trainer.plans_manager.plans, trainer.configuration_name, trainer.dataset_json)
    with refused_together():
        return _write(copy_spec(planned), default_num_processes, overwrite=False)


def copy_spec(planned: PlannedConfiguration) -> CopySpec:
    """How and where copies of a configuration are made."""
    source = planned.cases_folder()
    labels = LabelTable.from_dataset_json(planned.dataset_json, planned.dataset_json_file)
    patch_size = tuple(int(size) for size in planned.settings["patch_size"])
    per_slice = len(patch_size) == 2
    return CopySpec(
        source=source,
        target=source.with_name(source.name + ("_SIKD_per_slice" if per_slice else "_SIKD_per_volume")),
        per_slice=per_slice,
        patch_size=patch_size,
        labels=tuple(sorted(labels.values)),
        ignore_label=labels.ignore,
    )


def _write(spec: CopySpec, num_processes: int, overwrite: bool) -> Path:
    if spec.target.is_symlink():  # where it leads, copies that are no longer needed would be deleted
        raise SIKDError(f"{spec.target}: is a link; remove it, or link the whole folder of the data set instead")
    cases = sorted(nnUNetDatasetBlosc2.get_identifiers(str(spec.source)))
    try:
        # Unlocked look first: a finished folder may be read-only, where no lock can be taken.
        if not overwrite and not _outdated(spec, cases) and not _orphans(spec, cases):
            print(f"Class averages: all {len(cases)} in place in {spec.target}")
            return spec.target
        with _only_one(spec), _target_folder(spec), _scratch_folder(spec) as scratch:
            for case in _orphans(spec, cases):
                remove_copy(spec, case)
            todo = cases if overwrite else _outdated(spec, cases)
            with_foreground = _write_all(spec, todo, scratch, num_processes)
            if todo:
                _report_foreground(spec, todo, with_foreground)
    except OSError as error:
        raise SIKDError(
            f"{error.filename or spec.target}: class averages cannot be written ({error.strerror or error}); "
            "check free space and permissions, then run the same command again: what is done is kept"
        ) from error
    return spec.target


def _outdated(spec: CopySpec, cases: Sequence[str]) -> list[str]:
    return [case for case in cases if not is_current(spec, case)]


def _orphans(spec: CopySpec, cases: Sequence[str]) -> list[str]:
    """Copies of cases that are no longer in the data set: ``-f all`` would train on them."""
    if not spec.target.is_dir():
        return []
    return sorted(set(nnUNetDatasetBlosc2.get_identifiers(str(spec.target))) - set(cases))


@contextmanager
def _only_one(spec: CopySpec) -> Iterator[None]:
    """Let one process at a time write these copies; the others say that they wait."""
    lock = FileLock(spec.target.with_name(f".{spec.target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Class averages: another process is writing {spec.target}, waiting for it", flush=True)
        lock.acquire()
    except NotImplementedError as error:
        raise OSError(errno.ENOTSUP, "this file system has no file locks", str(spec.target)) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _target_folder(spec: CopySpec) -> Iterator[None]:
    """The folder of the copies, gone again if nothing came into it. Only while the lock is held."""
    spec.target.mkdir(exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            spec.target.rmdir()  # refuses where there are copies


@contextmanager
def _scratch_folder(spec: CopySpec) -> Iterator[Path]:
    """A folder for files in the making; those that a killed run left behind go."""
    parent = spec.target.parent
    prefix = f".{spec.target.name}."
    for leftover in parent.glob(f"{prefix}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = Path(mkdtemp(prefix=prefix, suffix=".tmp", dir=parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_all(spec: CopySpec, cases: Sequence[str], scratch: Path, num_processes: int) -> set[str]:
    """Write the copies; returns the cases that have foreground."""
    size = sum((spec.source / f"{case}.b2nd").stat().st_size for case in cases)
    num_processes = max(1, min(num_processes, len(cases), size // _BYTES_WORTH_A_PROCESS))
    with_foreground = set()
    with tqdm(total=len(cases), desc="Class averages", unit="case", disable=not cases) as progress:
        if num_processes == 1:
            for case in cases:
                if write_copy(spec, case, scratch):
                    with_foreground.add(case)
                progress.update()
            return with_foreground
        # Spawned, as nnU-Net does: forking a process that has started torch's threads can hang, and a training has.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_processes, context) as pool:
            waiting = iter(cases)
            running = {
                pool.submit(write_copy, spec, case, scratch): case for case in islice(waiting, 2 * num_processes)
            }
            try:
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        case = running.pop(future)
                        if future.result():
                            with_foreground.add(case)
                        progress.update()
                        for following in islice(waiting, 1):
                            running[pool.submit(write_copy, spec, following, scratch)] = following
            except BrokenProcessPool as error:
                raise SIKDError(
                    "a process that averages cases was killed (out of memory?): run the same command again with "
                    "fewer processes (-np), what is done is kept"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
    return with_foreground


def _report_foreground(spec: CopySpec, written: Sequence[str], with_foreground: set[str]) -> None:
    empty = sorted(set(written) - with_foreground)
    others = set(nnUNetDatasetBlosc2.get_identifiers(str(spec.target))) - set(written)
    if empty and not with_foreground and not any(has_foreground(spec, case) for case in others):
        # Or the next call would find all in place and say nothing.
        for case in (*empty, *others):
            remove_copy(spec, case)
        raise SIKDError(
            f"{spec.source}: no case has any foreground label, so there is nothing to learn; check the label files"
        )
    if empty:
        shown = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        print(f"Class averages: {len(empty)} of {len(written)} cases have background only ({shown})")
    print(f"Class averages: {len(written)} written to {spec.target}")

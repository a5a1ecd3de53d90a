"""Evaluation of a folder of predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nnunetv2.configuration import default_num_processes
from tqdm import tqdm

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.case import CaseResult, Settings, evaluate_case
from nnunetv2_sikd.evaluation.empty_masks import EmptyMaskPolicy
from nnunetv2_sikd.evaluation.files import (
    PairedFiles,
    check_same_format,
    choose_reader,
    list_names,
    load_dataset_json,
    pair_files,
)
from nnunetv2_sikd.evaluation.labels import LabelTable, Matching, match_labels
from nnunetv2_sikd.evaluation.report import summarize, write_metrics_csv, write_summary
from nnunetv2_sikd.folders import cannot_write, check_output, make_folder

_WORTH_WORKERS = 10.0  # seconds of work saved; a worker spends about 3 on importing nnU-Net
_PROBLEMS_TOLD = 4

_Task = tuple[str, Path, Path, Settings]


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        cases: Metrics of each case, by name.
        summary: Content of ``summary.json``.
        matching: Labels that were measured and those that were left out.
        files: Cases measured, without prediction, and without reference.
        output: Folder of ``summary.json`` and ``metrics.csv``.
    """

    cases: tuple[CaseResult, ...]
    summary: Mapping[str, Any]
    matching: Matching
    files: PairedFiles
    output: Path


def evaluate_folder(
    references: Path,
    predictions: Path,
    *,
    prediction_dataset_json: Path | None = None,
    reference_dataset_json: Path | None = None,
    label_map: Mapping[str, str] | None = None,
    output: Path | None = None,
    num_processes: int | None = None,
    tolerance: float = 2.0,
    per_slice: bool = False,
    chill: bool = False,
    policy: EmptyMaskPolicy | None = None,
) -> Evaluation:
    """Measure predictions against references and write ``summary.json`` and ``metrics.csv``.

    Args:
        references: Folder of reference label files.
        predictions: Folder of predictions of the same names.
        prediction_dataset_json: Declares the predictions' labels; None for the one among the predictions.
        reference_dataset_json: Declares the references' labels; None for the one beside or in their folder.
        label_map: Name in the predictions to name in the references, where they differ.
        output: Folder for the results; None for that of the predictions.
        num_processes: Processes; None for nnU-Net's default.
        tolerance: Of surface Dice, in mm (px for images without spacing).
        per_slice: Compare contours slice by slice, for slices that form no volume.
        chill: Accept references without a prediction.
        policy: For empty masks; None for the default one.

    Raises:
        SIKDError: The folders, their ``dataset.json`` or their files are not fit for it.
    """
    if output is not None and output.suffix == ".json":
        raise SIKDError(f"{output}: -o takes a folder here, summary.json and metrics.csv are written into it")
    check_output(predictions if output is None else output)
    reference_json, reference_source = load_dataset_json(
        reference_dataset_json,
        [references.resolve().parent / "dataset.json", references / "dataset.json"],
        "-gt_djfile",
    )
    prediction_json, prediction_source = load_dataset_json(
        prediction_dataset_json, [predictions / "dataset.json"], "-djfile"
    )
    check_same_format(prediction_json, prediction_source, reference_json, reference_source)
    ending = reference_json["file_ending"]
    files = pair_files(references, predictions, ending, chill=chill)
    reference_labels = LabelTable.from_dataset_json(reference_json, reference_source)
    prediction_labels = LabelTable.from_dataset_json(prediction_json, prediction_source)
    matching = match_labels(prediction_labels, reference_labels, label_map)
    reader = choose_reader(reference_json, references / f"{files.cases[0]}{ending}")
    settings = Settings(
        matching.labels, reference_labels, prediction_labels, reader, tolerance, per_slice, policy or EmptyMaskPolicy()
    )
    tasks = [(case, references / f"{case}{ending}", predictions / f"{case}{ending}", settings) for case in files.cases]
    cases = _evaluate(tasks, default_num_processes if num_processes is None else num_processes)
    summary = summarize(cases, settings, matching, files)
    output = predictions if output is None else output
    make_folder(output)
    try:
        write_summary(summary, output / "summary.json")
        write_metrics_csv(cases, output / "metrics.csv")
    except OSError as error:
        raise cannot_write(output, error) from error
    return Evaluation(cases, summary, matching, files, output)


def _evaluate(tasks: Sequence[_Task], num_processes: int) -> tuple[CaseResult, ...]:
    found = list(tqdm(_results(tasks, num_processes), total=len(tasks), desc="Evaluation", unit="case"))
    problems = [result for result in found if isinstance(result, str)]
    if problems:
        told = sorted(problems)[:_PROBLEMS_TOLD]
        more = [f"and {len(problems) - len(told)} more"] if len(problems) > len(told) else []
        raise SIKDError("; ".join([*told, *more]))
    results = [result for result in found if isinstance(result, CaseResult)]
    if len({result.unit for result in results}) > 1:
        in_pixels = [result.case for result in results if result.unit == "px"]
        raise SIKDError(f"{list_names(in_pixels)}: have no spacing and the other cases have one, so units would mix")
    return tuple(sorted(results, key=lambda result: result.case))


def _results(tasks: Sequence[_Task], num_processes: int) -> Iterator[CaseResult | str]:
    """Results in any order: here, until starting workers is worth the time they take to import nnU-Net.

    Judged by processor time, which on a busy machine grows less than the time by the clock.
    """
    start = time.process_time()
    for done, task in enumerate(tasks):
        workers = min(num_processes, len(tasks) - done, os.cpu_count() or 1)
        rest = (time.process_time() - start) / max(done, 1) * (len(tasks) - done)
        if done and workers > 1 and rest * (1 - 1 / workers) > _WORTH_WORKERS:
            yield from _results_of_workers(tasks[done:], workers)
            return
        yield evaluate_case(*task)


def _results_of_workers(tasks: Sequence[_Task], workers: int) -> Iterator[CaseResult | str]:
    # Spawned, as nnU-Net's: a fork of a process with torch's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(evaluate_case, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise SIKDError("a worker process died, probably for lack of memory: run again with -np 1") from error
        finally:
            for future in futures:
                future.cancel()

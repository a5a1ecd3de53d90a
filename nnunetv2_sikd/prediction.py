"""Cross-dataset prediction with nnU-Net's own command: checked before, continued when it was cut, timed."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint
from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import write_json
from nnunetv2_sikd.folders import cannot_write, check_output, make_folder
from nnunetv2_sikd.image_files import channel_names, find_cases, is_whole
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.processes import run
from nnunetv2_sikd.raw_cases import check_images, images_of
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.training import check_trained_by, fold_folder

COST_FILE = "prediction_cost.json"
_MODEL_FILE = "predicted_with.json"


def predict(
    images: Path,
    output: Path,
    dataset: str | int,
    configuration: str = "2d",
    plans: str = "nnUNetPlans",
    *,
    fold: int | str,
    trainer: str,
    device: str = "cuda",
    num_processes: int = 2,
) -> None:
    """Predict a folder of images with one trained fold; predictions that are there and whole stay.

    But those of images that were exchanged since, which their SHA-256 in ``predicted_with.json`` tells.

    Writes ``prediction_cost.json`` beside them: seconds, cases, device and peak memory of the largest process of the
    run that made the last ones (no seconds if that one was killed before it could tell).

    Args:
        images: Folder of ``<case>_0000<ending>`` files.
        output: Folder for the predictions.
        dataset: Data set that was trained on.
        configuration: Its configuration.
        plans: Its plans identifier.
        fold: Fold to predict with.
        trainer: Trainer's name.
        device: ``cuda``, ``cpu`` or ``mps``.
        num_processes: nnU-Net's processes for preprocessing and for export, each.

    Raises:
        SIKDError: No images, other channels or file ending than in training, no trained model, or nnU-Net failed.
    """
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    if planned.configuration.previous_stage_name is not None:
        raise SIKDError(
            f"-c {configuration}: is the second stage of a cascade, which needs predictions of the first; predict with "
            "nnUNetv2_predict, which takes them with -prev_stage_predictions"
        )
    cases = find_cases(images, planned.dataset_json, planned.plans.dataset_name)
    model = fold_folder(planned, trainer, fold)
    if not (model / "checkpoint_final.pth").is_file():
        raise SIKDError(
            f"{model}: has no finished training (checkpoint_final.pth); run nnUNetv2_sikd train "
            f"-d {planned.plans.dataset_name} -c {configuration} -p {plans} -f {fold} -tr {trainer}"
        )
    read_checkpoint(model / "checkpoint_final.pth")  # nnU-Net, which loads it next, would execute what it holds
    ending = planned.dataset_json["file_ending"]
    made_by = _made_by(model, images)
    earlier = _refuse_others(output, made_by, ending)
    made_by["image_sha256"] = _hashes(images, cases, planned)
    changed = _changed_since(earlier, made_by, output)
    missing = [case for case in cases if not is_whole(output / f"{case}{ending}") or case in changed]
    if missing and hasattr(variants, trainer):  # whatever others keep in theirs
        check_trained_by(model / "checkpoint_final.pth", trainer)
    if missing:
        check_device(device)
    _check_images(images, missing, planned)
    for case in missing:  # before the images are noted that the new ones are made from
        (output / f"{case}{ending}").unlink(missing_ok=True)
    _claim(output, made_by)
    if not missing:
        print(f"{output}: all {len(cases)} cases already predicted")
        if not (output / COST_FILE).is_file():
            write_json(output / COST_FILE, {"seconds": None, "cases": 0, "device": device, "peak_memory_mb": None})
        return
    command = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", planned.plans.dataset_name]
    command += ["-c", configuration, "-p", plans, "-f", str(fold), "-tr", trainer, "-device", device]
    command += ["-npp", str(num_processes), "-nps", str(num_processes), "--continue_prediction"]
    begin = time.monotonic()
    status = run(command, with_trainers())
    left = [case for case in missing if not (output / f"{case}{ending}").is_file()]
    if status != 0 or left:
        raise SIKDError(
            f"{output}: prediction failed for {len(left)} of {len(missing)} cases (exit status {status}, see above); "
            "run the same command again to continue"
        )
    seconds = round(time.monotonic() - begin, 3)
    cost = {"seconds": seconds, "cases": len(missing), "device": device, "peak_memory_mb": _peak_memory_mb()}
    write_json(output / COST_FILE, cost)


def _check_images(images: Path, cases: Sequence[str], planned: PlannedConfiguration) -> None:
    """Refuse images that nnU-Net could not read, or would read as something else, before it has predicted others."""
    reader, channels = planned.plans.image_reader_writer_class(), len(channel_names(planned.dataset_json))
    for case in tqdm(cases, desc="Checking images", unit="case", disable=not cases):
        check_images(images_of(images, case, planned.dataset_json), reader, channels)


def _made_by(model: Path, images: Path) -> dict[str, Any]:
    checkpoint = _sha256(model / "checkpoint_final.pth")
    return {"model": str(model), "checkpoint_sha256": checkpoint, "images": os.path.realpath(images)}


def _hashes(images: Path, cases: Sequence[str], planned: PlannedConfiguration) -> dict[str, list[str]]:
    """SHA-256 of each case's files: its channels, and the spacing that lies beside a TIFF."""
    hashes = {}
    for case in tqdm(cases, desc="Reading images", unit="case"):
        files = [*images_of(images, case, planned.dataset_json), images / f"{case}.json"]
        hashes[case] = [_sha256(file) for file in files if file.is_file()]
    return hashes


def _changed_since(earlier: Mapping[str, Any], made_by: Mapping[str, Any], output: Path) -> set[str]:
    """Cases with other images than those that earlier predictions were made from; an earlier version noted none.

    Raises:
        SIKDError: They lie in another folder, too: these are other images altogether.
    """
    before, now = earlier.get("image_sha256"), made_by["image_sha256"]
    changed = {case for case in now if isinstance(before, dict) and before.get(case) != now[case]}
    if earlier.get("images", made_by["images"]) != made_by["images"] and (changed or not isinstance(before, dict)):
        raise SIKDError(_of_others(output))
    return changed


def _refuse_others(output: Path, made_by: Mapping[str, Any], ending: str) -> dict[str, Any]:
    """Refuse a folder that holds predictions of another training, or what is no prediction.

    Returns:
        What the run before noted of itself; empty where there was none.
    """
    check_output(output)
    file = output / _MODEL_FILE
    other: dict[str, Any] = {}
    if file.is_file():
        try:
            other = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            other = {}
        # The model may have been moved since.
        if other.get("checkpoint_sha256") != made_by["checkpoint_sha256"]:
            raise SIKDError(_of_others(output))
    elif output.is_dir() and any(output.glob(f"*{ending}")):
        raise SIKDError(f"{output}: holds files that this command did not write; name another folder with -o")
    return other


def _of_others(output: Path) -> str:
    return (
        f"{output}: holds predictions of another training or of other images ({_MODEL_FILE} tells); delete it, or name "
        "another folder with -o"
    )


def _claim(output: Path, made_by: Mapping[str, Any]) -> None:
    """Note whose predictions, and of what, a folder holds."""
    make_folder(output)
    try:
        write_json(output / _MODEL_FILE, made_by)
    except OSError as error:
        raise cannot_write(output, error) from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _peak_memory_mb() -> float | None:
    """Resident memory in MiB of the largest process that was run; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)

"""Cross-dataset prediction with nnU-Net's own command: checked before, continued when it was cut, timed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import file_hash, write_json
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
    overwrite: bool = False,
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
        overwrite: Remove predictions of another training, or of other images, that this command has made in the folder.

    Raises:
        SIKDError: No images, other channels or file ending than in training, no trained model, predictions of others in
            the folder, or nnU-Net failed.
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
    # nnU-Net, which loads it next, would execute what it holds.
    weights = weights_hash(read_checkpoint(model / "checkpoint_final.pth")["network_weights"])
    ending = planned.dataset_json["file_ending"]
    made_by: dict[str, Any] = {"model": str(model), "weights_sha256": weights, "images": os.path.realpath(images)}
    made_by["image_sha256"] = _hashes(images, cases, planned)
    earlier = _earlier(output, ending)
    changed = _changed_since(earlier, made_by, model / "checkpoint_final.pth")
    if changed is None and not overwrite:
        raise SIKDError(
            f"{output}: holds predictions of another training or of other images ({_MODEL_FILE} tells); give "
            "--overwrite, or name another folder with -o"
        )
    others = changed is None
    changed = set(cases) if changed is None else changed
    missing = [case for case in cases if not is_whole(output / f"{case}{ending}") or case in changed]
    if missing and hasattr(variants, trainer):  # whatever others keep in theirs
        check_trained_by(model / "checkpoint_final.pth", trainer)
    if missing:
        check_device(device)
    _check_images(images, missing, planned)
    if others:
        _remove(output, earlier or {}, ending)
    for case in missing:  # before the images are noted that the new ones are made from
        (output / f"{case}{ending}").unlink(missing_ok=True)
    if not others and isinstance((earlier or {}).get("image_sha256"), dict):
        # Predictions of images that are away stay this training's.
        made_by["image_sha256"] = {**(earlier or {})["image_sha256"], **made_by["image_sha256"]}
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


def _hashes(images: Path, cases: Sequence[str], planned: PlannedConfiguration) -> dict[str, list[str]]:
    """SHA-256 of each case's files: its channels, and the spacing that lies beside a TIFF."""
    hashes = {}
    for case in tqdm(cases, desc="Reading images", unit="case"):
        files = [*images_of(images, case, planned.dataset_json), images / f"{case}.json"]
        hashes[case] = [file_hash(file) for file in files if file.is_file()]
    return hashes


def _changed_since(earlier: Mapping[str, Any] | None, made_by: Mapping[str, Any], checkpoint: Path) -> set[str] | None:
    """Cases with other images than those that earlier predictions were made from; an earlier version noted none.

    Returns:
        None if they are of another training, or of images in another folder, which are others altogether.
    """
    if earlier is None:
        return set()
    if "weights_sha256" in earlier:
        same = earlier["weights_sha256"] == made_by["weights_sha256"]  # nnU-Net writes times into the file
    else:  # an earlier version's
        same = earlier.get("checkpoint_sha256") == file_hash(checkpoint)
    before, now = earlier.get("image_sha256"), made_by["image_sha256"]
    changed = {case for case in now if isinstance(before, dict) and before.get(case) != now[case]}
    moved = earlier.get("images", made_by["images"]) != made_by["images"]
    if not same or (moved and (changed or not isinstance(before, dict))):
        return None
    return changed


def _earlier(output: Path, ending: str) -> dict[str, Any] | None:
    """What the run before noted of itself; None where there was none, empty where the note is damaged.

    Raises:
        SIKDError: The folder holds what this command did not write, or is none.
    """
    check_output(output)
    file = output / _MODEL_FILE
    if file.is_file():
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            return {}
    if output.is_dir() and any(output.glob(f"*{ending}")):
        raise SIKDError(f"{output}: holds files that this command did not write; name another folder with -o")
    return None


def _remove(output: Path, earlier: Mapping[str, Any], ending: str) -> None:
    """Remove the predictions that earlier runs noted (all where an earlier version noted none), and their cost."""
    noted = earlier.get("image_sha256")
    for file in [output / COST_FILE, *output.glob(f"*{ending}")]:
        if file.name == COST_FILE or not isinstance(noted, dict) or file.name.removesuffix(ending) in noted:
            file.unlink(missing_ok=True)


def _claim(output: Path, made_by: Mapping[str, Any]) -> None:
    """Note whose predictions, and of what, a folder holds."""
    make_folder(output)
    try:
        write_json(output / _MODEL_FILE, made_by)
    except OSError as error:
        raise cannot_write(output, error) from error


def _peak_memory_mb() -> float | None:
    """Resident memory in MiB of the largest process that was run; None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)

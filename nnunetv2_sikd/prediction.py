"""Cross-dataset prediction with nnU-Net's own command: checked before, continued when it was cut, timed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import IO

from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import write_json
from nnunetv2_sikd.image_files import find_cases, is_whole
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.processes import run
from nnunetv2_sikd.training import fold_folder

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
    cases = find_cases(images, planned.dataset_json, planned.plans.dataset_name)
    model = fold_folder(planned, trainer, fold)
    if not (model / "checkpoint_final.pth").is_file():
        raise SIKDError(
            f"{model}: has no finished training (checkpoint_final.pth); run nnUNetv2_sikd train "
            f"-d {planned.plans.dataset_name} -c {configuration} -p {plans} -f {fold} -tr {trainer}"
        )
    ending = planned.dataset_json["file_ending"]
    _claim(output, model, images, ending)
    missing = [case for case in cases if not is_whole(output / f"{case}{ending}")]
    if not missing:
        print(f"{output}: all {len(cases)} cases already predicted")
        if not (output / COST_FILE).is_file():
            write_json(output / COST_FILE, {"seconds": None, "cases": 0, "device": device, "peak_memory_mb": None})
        return
    for case in missing:
        (output / f"{case}{ending}").unlink(missing_ok=True)
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


def _claim(output: Path, model: Path, images: Path, ending: str) -> None:
    """Note whose predictions, and of what, a folder holds; refuse one that holds others."""
    with (model / "checkpoint_final.pth").open("rb") as checkpoint:
        made_by = {"model": str(model), "checkpoint_sha256": _sha256(checkpoint), "images": str(images.resolve())}
    file = output / _MODEL_FILE
    if file.is_file():
        try:
            other = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            other = {}
        if other == made_by:
            return
        # The model may have been moved since; whoever wrote no images knew of one folder only.
        same_images = other.get("images", made_by["images"]) == made_by["images"]
        if other.get("checkpoint_sha256") != made_by["checkpoint_sha256"] or not same_images:
            raise SIKDError(
                f"{output}: holds predictions of another training or of other images ({file.name} tells); delete it, "
                "or name another folder with -o"
            )
    elif output.is_dir() and any(output.glob(f"*{ending}")):
        raise SIKDError(f"{output}: holds files that this command did not write; name another folder with -o")
    try:
        output.mkdir(parents=True, exist_ok=True)
        write_json(file, made_by)
    except OSError as error:
        raise SIKDError(f"{output}: cannot be written ({error.strerror}); name another folder with -o") from error


def _sha256(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
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

"""Cross-dataset prediction with nnU-Net's own command: checked before, continued when it was cut, timed."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from pathlib import Path
from typing import IO

import SimpleITK as sitk

from nnunetv2_sikd.environment import with_trainers
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import write_json
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

    Writes ``prediction_cost.json`` (seconds, cases, device, peak memory of the largest process) beside them.

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
    cases = find_cases(images, planned)
    model = fold_folder(planned, trainer, fold)
    if not (model / "checkpoint_final.pth").is_file():
        raise SIKDError(f"{model}: has no finished training (checkpoint_final.pth); run nnUNetv2_sikd train first")
    ending = planned.dataset_json["file_ending"]
    _claim(output, model, ending)
    missing = [case for case in cases if not _is_whole(output / f"{case}{ending}")]
    if not missing:
        print(f"{output}: all {len(cases)} cases already predicted")
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


def _claim(output: Path, model: Path, ending: str) -> None:
    """Note whose predictions a folder holds; refuse one that holds another training's."""
    with (model / "checkpoint_final.pth").open("rb") as checkpoint:
        made_by = {"model": str(model), "checkpoint_sha256": _sha256(checkpoint)}
    file = output / _MODEL_FILE
    if file.is_file():
        if json.loads(file.read_text(encoding="utf-8")) != made_by:
            raise SIKDError(
                f"{output}: holds predictions of another training; delete it or name another folder with -o"
            )
    elif output.is_dir() and any(output.glob(f"*{ending}")):
        raise SIKDError(f"{output}: holds files that this command did not write; name another folder with -o")
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, made_by)


def find_cases(images: Path, planned: PlannedConfiguration) -> list[str]:
    """Names of the cases in a folder of images, checked against what the network was trained on.

    Raises:
        SIKDError: No folder, no images, or images of other channels or another file ending.
    """
    if not images.is_dir():
        raise SIKDError(f"{images}: no such folder of images")
    ending = planned.dataset_json["file_ending"]
    channels = len(planned.dataset_json["channel_names"])
    files = sorted(file.name for file in images.iterdir() if not file.name.startswith("."))
    found: dict[str, set[int]] = {}
    for name in files:
        match = re.fullmatch(r"(.+)_(\d{4})" + re.escape(ending), name)
        if match:
            found.setdefault(match.group(1), set()).add(int(match.group(2)))
    if not found:
        instead = f"it has {files[0]} and the like: convert them" if files else "it is empty"
        raise SIKDError(
            f"{images}: has no files named <case>_0000{ending}, which a network trained on "
            f"{planned.plans.dataset_name} reads; {instead}"
        )
    for case, numbers in found.items():
        if numbers != set(range(channels)):
            names = ", ".join(map(str, planned.dataset_json["channel_names"].values()))
            raise SIKDError(
                f"{images / case}_*{ending}: has channels {sorted(numbers)}, and the network was trained with "
                f"{channels} ({names}): it cannot predict this data set"
            )
    return list(found)


def _is_whole(file: Path) -> bool:
    """Whether a prediction is there and readable to its end: a kill can leave half of one."""
    if not file.is_file():
        return False
    try:
        sitk.ReadImage(str(file))
    except RuntimeError:
        return False
    return True


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

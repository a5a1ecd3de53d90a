"""Trained folds on their validation cases under simulated shifts: Dice over severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunetv2_sikd.devices import check_device
from nnunetv2_sikd.distillation.checkpoint import read_checkpoint, weights_hash
from nnunetv2_sikd.environment import require_folders
from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.figures.cases import validation_cases
from nnunetv2_sikd.files import only_here, write_text
from nnunetv2_sikd.folders import cannot_write, make_folder
from nnunetv2_sikd.patients import patient_of
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.stress.examples import draw_examples, median_case, one_of_each
from nnunetv2_sikd.stress.predict import (
    RawCase,
    in_plane,
    load_case,
    predictor_of,
    raw_files,
    score,
)
from nnunetv2_sikd.stress.record import SCORES, case_hashes, plans_hash, read_scores, settle, write_scores
from nnunetv2_sikd.stress.scores import Score, by_seed, differences, mean_dice, summary_table, title_of
from nnunetv2_sikd.stress.shifts import VERSION, Image, Shift, ranges_of, shifted
from nnunetv2_sikd.stress.show import draw_curves, draw_differences, draw_shifts
from nnunetv2_sikd.trainers import variants
from nnunetv2_sikd.trainers.teacher import nnUNetTrainer_SIKDTeacher
from nnunetv2_sikd.training import check_split_of, check_trained_by, fold_folder


def stress(
    planned: PlannedConfiguration,
    fold: int | str,
    trainers: Sequence[str],
    output: Path,
    *,
    severities: int = 3,
    num_cases: int | None = None,
    device: str = "cuda",
    mirroring: bool = True,
    patient: str | None = None,
) -> list[Path]:
    """Predict a fold's validation cases under simulated shifts with each trainer; what is done already stays.

    Images are altered before nnU-Net's preprocessing, so that its normalisation sees the shift as it would see another
    scanner's. Dice is measured on the grid of the network, which spares each prediction its way back.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold.
        trainers: Names of trained trainers; the others are compared with the first.
        output: Folder for scores, table and pictures; further trainers add to what is there.
        severities: Steps from no change to the strongest.
        num_cases: Validation cases to use, evenly spread; None for all.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Whether predictions are averaged over mirrored images, as ``nnUNetv2_predict`` does.
        patient: Regular expression that finds the patient in a case's name; None if each case is another patient.

    Returns:
        ``stress.csv`` (every score), ``stress.md`` (table), ``stress.png`` (Dice over severity), ``differences.png``
        (where trainers differ in more than their seed), ``shifts.png`` (what the shifts look like) and ``examples.png``
        (what the trainers asked for find under the strongest ones, in the case of median Dice).

    Raises:
        SIKDError: A trainer is not trained, is a teacher, or was trained with another split; the fold has no validation
            cases of its own; the configuration is the second stage of a cascade; a case's name has no patient; raw
            cases are missing or damaged; or the folder holds scores of other settings, weights, images or shifts.
    """
    require_folders("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    if planned.configuration.previous_stage_name is not None:
        raise SIKDError(
            f"-c {planned.name}: is the second stage of a cascade, whose networks need predictions of the first; "
            "choose another configuration"
        )
    if fold == "all":
        raise SIKDError("-f all: has trained on every case, so none is left to validate on; name a fold's number")
    checkpoints = {name: _checkpoint(planned, name, fold) for name in dict.fromkeys(trainers)}
    cases = _spread(validation_cases(planned, fold), num_cases)
    patients = {case: _patient_of(case, patient) for case in cases}
    check_device(device)
    networks = {name: predictor_of(planned, checkpoints[name], name, device, mirroring) for name in checkpoints}
    files = raw_files(planned, cases)
    make_folder(output)
    refusal = f"{output}: another process is writing scores there; wait for it, or name another folder with -o"
    with only_here(output / ".lock", refusal):
        about = {
            "dataset": planned.dataset_name,
            "configuration": planned.name,
            "plans": planned.plans_json["plans_name"],
            "fold": fold,
            "severities": severities,
            "mirroring": mirroring,
            "version of the shifts": VERSION,
        }
        weights = {name: weights_hash(c["network_weights"]) for name, c in checkpoints.items()}
        hashes = {case: case_hashes(case, *files[case]) for case in cases}
        record = settle(output, about, weights, plans_hash(planned), hashes)
        scores = read_scores(output)
        known = {(score.trainer, score.case) for score in scores}
        for case in tqdm(cases, desc="Validation cases", unit="case"):
            left = {name: networks[name] for name in checkpoints if (name, case) not in known}
            undrawn = not (output / "shifts.png").is_file()
            if left or undrawn:
                raw = load_case(planned, case, *files[case])
                if undrawn:
                    _draw_shifts(planned, raw, severities, output / "shifts.png")
                if left:
                    scores += score(planned, raw, left, severities)
                    record["cases_sha256"][case] = hashes[case]
                    write_scores(output, scores, record)
        shown, each = median_case(scores, cases), one_of_each(checkpoints)
        wanted = {"case": shown, "trainers": each}
        if _is_outdated(record.get("examples"), wanted) or not (output / "examples.png").is_file():
            title = f"{planned.dataset_name}, validation case {shown}; shifts at severity {severities}"
            raw = load_case(planned, shown, *files[shown])
            draw_examples(planned, raw, {name: networks[name] for name in each}, output / "examples.png", title)
            write_scores(output, scores, {**record, "examples": wanted})
    return _summarise(scores, list(checkpoints), patients, output, told=patient is not None)


def _is_outdated(drawn: Any, asked: Mapping[str, Any]) -> bool:
    """Whether a picture of examples lacks a trainer that was asked for, or is of another case."""
    if not isinstance(drawn, dict):
        return True
    return drawn.get("case") != asked["case"] or not set(asked["trainers"]) <= set(drawn.get("trainers", ()))


def _summarise(
    scores: Sequence[Score], trainers: Sequence[str], patients: Mapping[str, str], output: Path, *, told: bool
) -> list[Path]:
    """Write table and curves of the trainers that were asked for, and of others whose scores are there.

    Args:
        scores: Of any cases.
        trainers: Asked for; the others are compared with the first.
        patients: Of each case that was asked for.
        output: Folder.
        told: Whether somebody told the patients.
    """
    asked = [score for score in scores if score.case in patients]
    known = {(score.trainer, score.case) for score in asked}
    # Of these cases only: means over different ones cannot be compared.
    others = [
        name
        for name in dict.fromkeys(score.trainer for score in asked)
        if name not in trainers and all((name, case) in known for case in patients)
    ]
    shown = [*trainers, *others]
    asked = [score for score in asked if score.trainer in shown]
    dice = mean_dice(asked, patients.__getitem__)
    table = summary_table(asked, shown, patients.__getitem__ if told else None)
    try:
        write_text(output / "stress.md", table)
    except OSError as error:
        raise cannot_write(output, error) from error
    print(f"\n{table}")
    pictures = [draw_curves(dice, shown, output / "stress.png")]
    compared = {title: found for title, found in differences(dice, shown).items() if found}
    if compared:
        first, group = next(iter(by_seed(shown).items()))
        pictures.append(draw_differences(compared, title_of(first, group), output / "differences.png"))
    else:
        (output / "differences.png").unlink(missing_ok=True)  # of trainers that are no longer compared
    return [output / SCORES, output / "stress.md", *pictures, output / "shifts.png", output / "examples.png"]


def _patient_of(case: str, pattern: str | None) -> str:
    patient = patient_of(case, pattern)
    if patient is None:
        raise SIKDError(f"--patient {pattern!r}: finds none in the case {case}; mend the pattern")
    return patient


def _checkpoint(planned: PlannedConfiguration, name: str, fold: int | str) -> dict[str, Any]:
    trainer = getattr(variants, name, None)
    if isinstance(trainer, type) and issubclass(trainer, nnUNetTrainer_SIKDTeacher):
        raise SIKDError(f"-tr {name}: is a teacher, which sees class averages and no images; name its student")
    file = fold_folder(planned, name, fold) / "checkpoint_final.pth"
    if not file.is_file():
        raise SIKDError(
            f"{file}: not there, {name} is not trained to its end; run nnUNetv2_sikd train -d {planned.dataset_name} "
            f"-c {planned.name} -p {planned.plans_json['plans_name']} -f {fold} -tr {name}"
        )
    if trainer is not None:  # whatever others keep in theirs
        check_trained_by(file, name)
    check_split_of(planned, name, fold)
    checkpoint = read_checkpoint(file)
    # Not the optimiser's state, twice the weights, through the whole run.
    return {key: checkpoint.get(key) for key in ("network_weights", "inference_allowed_mirroring_axes")}


def _spread(cases: Sequence[str], number: int | None) -> list[str]:
    if number is None or number >= len(cases):
        return list(cases)
    return [cases[round(place)] for place in np.linspace(0, len(cases) - 1, number)]


def _draw_shifts(planned: PlannedConfiguration, raw: RawCase, severities: int, file: Path) -> None:
    image, label = in_plane(planned, raw)

    def alter(shift: Shift, severity: int) -> Image:
        return shifted(image, label, shift, severity / severities, raw.name, ranges_of(planned))

    draw_shifts(alter, int((label > 0).sum(axis=(1, 2)).argmax()), severities, file)

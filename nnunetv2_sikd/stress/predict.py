"""Validation cases as the network gets them, as they are or under a shift, its predictions and their Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw
from tqdm import tqdm

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.evaluation.labels import LabelTable
from nnunetv2_sikd.figures.networks import build_network
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.raw_cases import check_case, training_cases
from nnunetv2_sikd.stress.scores import Score
from nnunetv2_sikd.stress.shifts import SHIFTS, Image, Label, Shift, ranges_of, shifted
from nnunetv2_sikd.trainers.lookup import find_trainer


@dataclass(frozen=True)
class RawCase:
    """A case before any preprocessing.

    Attributes:
        name: Case identifier.
        image: ``(C, Z, Y, X)``.
        label: ``(1, Z, Y, X)``.
        properties: What nnU-Net's reader tells of the image.
    """

    name: str
    image: Image
    label: Label
    properties: dict[str, Any]


def raw_files(planned: PlannedConfiguration, cases: Sequence[str]) -> dict[str, tuple[list[Path], Path]]:
    """Images and label file of each case, checked before anything is predicted.

    Raises:
        SIKDError: A case's files are missing or damaged.
    """
    raw = Path(str(nnUNet_raw)) / planned.dataset_name
    files = training_cases(raw, planned.dataset_json)
    missing = [case for case in cases if case not in files or not files[case][1].is_file()]
    if missing:
        raise SIKDError(f"{raw}: has no image or no label of validation case {missing[0]}; put the raw data back")
    reader = planned.plans.image_reader_writer_class()
    table = LabelTable.from_dataset_json(planned.dataset_json, planned.dataset_json_file)
    for case in tqdm(cases, desc="Checking raw data", unit="case"):
        check_case(*files[case], reader, table, len(planned.configuration.normalization_schemes))
    return files


def load_case(planned: PlannedConfiguration, name: str, images: list[Path], label: Path) -> RawCase:
    """Read a case as nnU-Net does."""
    reader = planned.plans.image_reader_writer_class()
    image, properties = reader.read_images([str(file) for file in images])
    segmentation, _ = reader.read_seg(str(label))
    return RawCase(name, image.astype(np.float32), segmentation.astype(np.int16), properties)


def predictor_of(
    planned: PlannedConfiguration, checkpoint: dict[str, Any], name: str, device: str, mirroring: bool
) -> nnUNetPredictor:
    """nnU-Net's predictor with the network of a checkpoint.

    Args:
        planned: Data set and configuration.
        checkpoint: Its content.
        name: Of the trainer.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Whether predictions are averaged over mirrored images.
    """
    where = torch.device(device)
    network = build_network(planned, find_trainer(name, "-tr"), Path(name), checkpoint, where)
    predictor = nnUNetPredictor(
        use_mirroring=mirroring,
        perform_everything_on_device=device == "cuda",
        device=where,
        allow_tqdm=False,
    )
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    weights = [checkpoint["network_weights"]]
    predictor.manual_initialization(
        network, planned.plans, planned.configuration, weights, planned.dataset_json, name, axes
    )
    return predictor


def score(
    planned: PlannedConfiguration,
    raw: RawCase,
    networks: Mapping[str, nnUNetPredictor],
    severities: int,
    shifts: Sequence[Shift] = SHIFTS,
) -> list[Score]:
    """Dice of each network and label without shift and under each shift and severity.

    Args:
        planned: Data set and configuration.
        raw: The case.
        networks: By trainer.
        severities: Steps to the strongest.
        shifts: Those to try.
    """
    steps: list[tuple[Shift | None, int]] = [(None, 0)]
    steps += [(shift, severity) for shift in shifts for severity in range(1, severities + 1)]
    scores = []
    for shift, severity in tqdm(steps, desc=raw.name, unit="image", leave=False):
        image, reference = preprocessed(planned, raw, shift, severity / severities)
        for name, network in networks.items():
            for structure, dice in dice_by_label(planned, reference, segmented(planned, network, image)).items():
                scores.append(Score(name, raw.name, shift.name if shift else "", severity, structure, dice))
    return scores


def in_plane(planned: PlannedConfiguration, raw: RawCase) -> tuple[Image, Label]:
    """Image ``(C, Z, Y, X)`` and label ``(Z, Y, X)`` with the slices of the acquisition first, nnU-Net's order."""
    order = _channels_first(planned.plans.transpose_forward)
    return raw.image.transpose(order), raw.label.transpose(order)[0]


def preprocessed(
    planned: PlannedConfiguration, raw: RawCase, shift: Shift | None, strength: float
) -> tuple[Image, Label]:
    """A case as the network gets it.

    Args:
        planned: Data set and configuration.
        raw: The case.
        shift: What is done to the image before nnU-Net's preprocessing; None for nothing.
        strength: Of the shift, 0 to 1.

    Shape:
        - image: ``(C, Z, Y, X)``
        - reference: ``(Z, Y, X)``
    """
    image = raw.image
    if shift is not None:
        altered = shifted(*in_plane(planned, raw), shift, strength, raw.name, ranges_of(planned))
        image = np.ascontiguousarray(altered.transpose(_channels_first(planned.plans.transpose_backward)))
    data, reference, _ = planned.configuration.preprocessor_class(verbose=False).run_case_npy(
        image, raw.label, dict(raw.properties), planned.plans, planned.configuration, planned.dataset_json
    )
    return np.asarray(data), np.asarray(reference[0])


def segmented(planned: PlannedConfiguration, network: nnUNetPredictor, image: Image) -> Label:
    """Prediction ``(Z, Y, X)`` for a preprocessed image ``(C, Z, Y, X)``."""
    logits = network.predict_logits_from_preprocessed_data(torch.as_tensor(image))
    return np.asarray(planned.label_manager.convert_logits_to_segmentation(logits))


def dice_by_label(planned: PlannedConfiguration, reference: Label, prediction: Label) -> dict[str, float]:
    """Dice by name of class or region; nan where the reference lacks it, whatever was predicted.

    nnU-Net gives 0 to a network that finds something there and nan to one that does not, so that means of two networks
    would be over different labels.
    """
    ignored = planned.label_manager.ignore_label
    ignore_mask = None if ignored is None else reference == ignored
    values = {}
    for name, label in planned.dataset_json["labels"].items():
        if name in ("background", "ignore"):
            continue
        whole = tuple(label) if isinstance(label, list) else int(label)
        masks = (region_or_label_to_mask(each, whole) for each in (reference, prediction))
        tp, fp, fn, _ = compute_tp_fp_fn_tn(*masks, ignore_mask)
        values[name] = float(2 * tp / (2 * tp + fp + fn)) if tp + fn else float("nan")
    return values


def _channels_first(order: Sequence[int]) -> list[int]:
    """An order of nnU-Net's axes for arrays with channels."""
    return [0, *(axis + 1 for axis in order)]

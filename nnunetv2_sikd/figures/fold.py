"""All figures of a trained fold."""

from __future__ import annotations

from pathlib import Path

from nnunetv2_sikd.figures.features import draw_features
from nnunetv2_sikd.figures.intensities import draw_intensities
from nnunetv2_sikd.figures.networks import load_networks
from nnunetv2_sikd.folders import check_output
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration


def draw_figures(
    planned: PlannedConfiguration,
    fold: int | str,
    student: str,
    stock: str | None,
    output: Path,
    case: str | None = None,
    slice_index: int | None = None,
    device: str = "cpu",
) -> list[Path]:
    """Draw intensities and features of a fold; earlier figures in the folder are replaced.

    Args:
        planned: Data set and configuration.
        fold: Number of the fold, or ``all``.
        student: Name of the student's trainer; its teacher's follows from it.
        stock: Name of the trainer to compare with, left out where it is not trained; None for stock
            nnU-Net with the student's augmentation, seed and schedule.
        output: Folder; made if it is not there.
        case: Case whose features are shown; None for the first validation case.
        slice_index: Its slice, as preprocessed; None for the one with the most foreground classes, then pixels.
        device: ``cpu``, ``cuda`` or ``mps``.

    Returns:
        ``features.png``, ``features.csv``, ``intensities.png`` and ``intensities.csv``.

    Raises:
        SIKDError: Student or teacher is not trained, they do not fit each other, no such case or slice, or the
            files cannot be written.
    """
    check_output(output)
    networks = load_networks(planned, fold, student, stock, device)
    files = draw_features(planned, fold, networks, output, case, slice_index)
    return [*files, *draw_intensities(planned, fold, output)]

"""What a metric is when a mask is empty: a named policy, so that no case drops out unseen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Empty(str, Enum):
    """Which of the two masks of a case has no voxel; the value is what ``metrics.csv`` says."""

    NONE = "none"
    REFERENCE = "reference"
    PREDICTION = "prediction"
    BOTH = "both"


def classify_empty(reference_voxels: int, prediction_voxels: int) -> Empty:
    """Which of two masks is empty, by their numbers of voxels (ignored voxels not among them)."""
    if not reference_voxels:
        return Empty.REFERENCE if prediction_voxels else Empty.BOTH
    return Empty.NONE if prediction_voxels else Empty.PREDICTION


@dataclass(frozen=True)
class EmptyMaskPolicy:
    """Values for cases of which a mask is empty.

    nan means: not in the mean, but counted as such in ``summary.json``.

    Attributes:
        both: Neither file has the label. ``exclude``: every metric is nan, as nnU-Net has it for Dice. ``perfect``:
            overlap 1, distances 0.
        one: One file has it. Overlap is 0 in any case. ``diagonal``: distances are the diagonal of the image (of the
            slice where surfaces are compared slice by slice), which no distance within it exceeds. ``exclude``:
            distances are nan, and the mean improves the more often a structure is missed.

    Reference:
        Maier-Hein, Reinke et al.: Metrics reloaded. Nature Methods 2024 (worst possible value for a missed structure).
    """

    both: Literal["exclude", "perfect"] = "exclude"
    one: Literal["diagonal", "exclude"] = "diagonal"

    def overlap(self, empty: Empty) -> float:
        """Dice, IoU or surface Dice of a case with an empty mask (0 to 1, or nan)."""
        if empty is Empty.BOTH:
            return 1.0 if self.both == "perfect" else math.nan
        return 0.0

    def distance(self, empty: Empty, diagonal: float) -> float:
        """Any surface distance of a case with an empty mask.

        Args:
            empty: Which mask is empty.
            diagonal: Of the image or slice, in the unit of the distances.
        """
        if empty is Empty.BOTH:
            return 0.0 if self.both == "perfect" else math.nan
        return diagonal if self.one == "diagonal" else math.nan

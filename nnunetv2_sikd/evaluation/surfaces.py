"""Distances between the surfaces of two masks, weighted by surface area (contour length in 2D).

All from one call of DeepMind's ``surface-distance`` per pair of masks: it finds the surface elements of both, their
areas in the image's spacing, and the distance of each to the other surface.

Reference:
    Nikolov et al.: Clinically applicable segmentation of head and neck anatomy for radiotherapy. JMIR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from surface_distance import (
    compute_robust_hausdorff,
    compute_surface_dice_at_tolerance,
    compute_surface_distances,
)

Mask = NDArray[np.bool_]
SurfaceDistances = dict[str, NDArray[np.float64]]
"""What ``compute_surface_distances`` returns: distances and areas of the elements of both surfaces, by distance."""

_SIDES = (("distances_gt_to_pred", "surfel_areas_gt"), ("distances_pred_to_gt", "surfel_areas_pred"))


@dataclass(frozen=True)
class SurfaceMetrics:
    """Distances between two surfaces, in the unit of the spacing.

    Attributes:
        hausdorff: Largest distance of any element of either surface to the other surface.
        hausdorff95: The larger of the two directed 95th percentiles, weighted by area.
        average_surface_distance: Symmetric: mean over the elements of both surfaces together, weighted by area.
        surface_dice: Share of both surfaces' area that lies within the tolerance of the other surface (0 to 1).
        unmatched_slices: Slices in which just one of the masks is empty (slice by slice only).
    """

    hausdorff: float
    hausdorff95: float
    average_surface_distance: float
    surface_dice: float
    unmatched_slices: int = 0


def measure_surfaces(
    reference: Mask,
    prediction: Mask,
    spacing: tuple[float, float, float],
    *,
    tolerance: float,
    per_slice: bool,
    missing: float,
) -> SurfaceMetrics:
    """All surface metrics of two masks that both have voxels.

    Args:
        reference: Shape ``(Z, Y, X)``.
        prediction: Of the same shape.
        spacing: Of the three axes.
        tolerance: Of surface Dice, in the unit of the spacing.
        per_slice: Compare contours within slices of the first axis, and pool them over the slices.
        missing: Distance of contours in slices in which the other mask is empty; nan leaves them out of the distances.
    """
    if not per_slice:
        return _metrics(compute_surface_distances(reference, prediction, spacing), tolerance)
    surfaces, unmatched = pool_slices(reference, prediction, spacing[1:])
    surface_dice = float(compute_surface_dice_at_tolerance(surfaces, tolerance))
    metrics = _metrics(_replace_infinite(surfaces, missing), tolerance)
    # Contours without a counterpart agree with nothing, whatever the policy says about their distance.
    return SurfaceMetrics(
        metrics.hausdorff, metrics.hausdorff95, metrics.average_surface_distance, surface_dice, unmatched
    )


def pool_slices(reference: Mask, prediction: Mask, spacing: tuple[float, float]) -> tuple[SurfaceDistances, int]:
    """Contour elements of all slices together; their distance is infinite where the other mask has none in the slice.

    Args:
        reference: Shape ``(Z, Y, X)``.
        prediction: Of the same shape.
        spacing: Within the slices.

    Returns:
        The elements, by distance, and the number of slices in which just one mask is empty.
    """
    slices, unmatched = [], 0
    for left, right in zip(reference, prediction, strict=True):
        has_left, has_right = bool(left.any()), bool(right.any())
        if has_left and has_right:
            slices.append(compute_surface_distances(left, right, spacing))
        elif has_left or has_right:
            # Not given to the library as it is: with an empty mask it uses a name that numpy 2 lacks.
            contour = compute_surface_distances(left | right, left | right, spacing)
            for (distances, areas), there in zip(_SIDES, (has_left, has_right), strict=True):
                contour[distances] = np.full_like(contour[distances], np.inf) if there else np.array([])
                contour[areas] = contour[areas] if there else np.array([])
            slices.append(contour)
            unmatched += 1
    pooled = {name: np.concatenate([found[name] for found in slices]) for side in _SIDES for name in side}
    for distances, areas in _SIDES:
        order = np.argsort(pooled[distances], kind="stable")
        pooled[distances], pooled[areas] = pooled[distances][order], pooled[areas][order]
    return pooled, unmatched


def average_surface_distance(surfaces: SurfaceDistances) -> float:
    """Mean distance over the elements of both surfaces together, weighted by area."""
    total = sum(float(np.sum(surfaces[distances] * surfaces[areas])) for distances, areas in _SIDES)
    return total / sum(float(np.sum(surfaces[areas])) for _, areas in _SIDES)


def _metrics(surfaces: SurfaceDistances, tolerance: float) -> SurfaceMetrics:
    if not all(len(surfaces[distances]) for distances, _ in _SIDES):  # no slice has both
        return SurfaceMetrics(np.nan, np.nan, np.nan, np.nan)
    return SurfaceMetrics(
        # Not the library's 100th percentile: a cumulated area can reach 1 before the last element by rounding.
        hausdorff=float(max(surfaces[distances].max() for distances, _ in _SIDES)),
        hausdorff95=float(compute_robust_hausdorff(surfaces, 95)),
        average_surface_distance=average_surface_distance(surfaces),
        surface_dice=float(compute_surface_dice_at_tolerance(surfaces, tolerance)),
    )


def _replace_infinite(surfaces: SurfaceDistances, value: float) -> SurfaceDistances:
    """The diagonal for contours without a counterpart; nan removes them. Infinite ones come last: order is kept."""
    result = dict(surfaces)
    for distances, areas in _SIDES:
        finite = np.isfinite(surfaces[distances])
        if np.isnan(value):
            result[distances], result[areas] = surfaces[distances][finite], surfaces[areas][finite]
        else:
            result[distances] = np.where(finite, surfaces[distances], value)
    return result

"""Intensities per class, in images and in class averages: counted over cases, and put into numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.figures.cases import averaged_apart, class_names, read_case
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

# Bin of the histograms, and what counts as near the background, in standard deviations of the image.
BIN_SD, NEAR_SD = 0.1, 0.2


@dataclass
class ClassIntensities:
    """Intensities of one class in one channel, over all cases.

    Attributes:
        value: Label value.
        name: Class name.
        bin_width: Width of the bins; bin k holds the intensities that round to ``k * bin_width``.
        images: Pixels per bin in the images.
        averages: Pixels per bin in the class averages.
        levels: The class's average in each slice (or volume) that has it.
        sizes: Pixels of the class in each of these.
        from_background: Average minus background's average where both are there, in standard deviations of
            the case's image.
        texture: Sum of the squared differences between the images' intensities and their averages.
    """

    value: int
    name: str
    bin_width: float
    images: Counter[int] = field(default_factory=Counter)
    averages: Counter[int] = field(default_factory=Counter)
    levels: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    from_background: list[float] = field(default_factory=list)
    texture: float = 0.0

    def add(self, values: NDArray[np.float32], level: float, background: float | None, image_sd: float) -> None:
        """Take in one slice (or volume): intensities of the class's pixels and their average."""
        _count(self.images, values, self.bin_width)
        self.averages[round(level / self.bin_width)] += values.size
        self.levels.append(level)
        self.sizes.append(values.size)
        self.texture += float(np.square(values.astype(np.float64) - level).sum())
        if background is not None and self.value != 0:
            self.from_background.append((level - background) / image_sd if image_sd > 0 else 0.0)

    @property
    def mean(self) -> float:
        """Mean of all pixels, which images and averages share."""
        return float(np.average(self.levels, weights=self.sizes))

    @property
    def sd_averages(self) -> float:
        """Standard deviation of the class averages over all pixels: what is left between slices."""
        return float(np.sqrt(np.average(np.square(np.subtract(self.levels, self.mean)), weights=self.sizes)))

    @property
    def sd_within(self) -> float:
        """Standard deviation of the images within slices (or volumes): the texture that averaging removes."""
        return float(np.sqrt(self.texture / sum(self.sizes)))

    @property
    def sd_images(self) -> float:
        """Standard deviation of the images over all pixels."""
        return float(np.hypot(self.sd_within, self.sd_averages))

    @property
    def near_background(self) -> float:
        """Share of slices in which the average lies within ``NEAR_SD`` of background's; NaN for background."""
        return float(np.mean(np.abs(self.from_background) < NEAR_SD)) if self.from_background else float("nan")


def measure_intensities(planned: PlannedConfiguration, cases: list[str]) -> list[list[ClassIntensities]]:
    """Distributions by channel, and within a channel by class; classes that no case has are left out.

    Args:
        planned: Data set and configuration; 2D configurations are averaged per slice, 3D ones per volume.
        cases: Preprocessed cases.

    Raises:
        SIKDError: A case cannot be read.
    """
    names, ignore_label = class_names(planned), planned.label_manager.ignore_label
    result: list[list[ClassIntensities]] = []
    for case in tqdm(cases, desc="Intensities", unit="case"):
        image, label = read_case(planned, case)
        label = np.where((label < 0) & (label != ignore_label), 0, label)
        spreads = image.std(axis=(1, 2, 3), dtype=np.float64)
        if not result:
            # Bins must be the same for all cases; where the first is constant, any width will do.
            result = [
                [ClassIntensities(k, name, BIN_SD * (float(sd) or 1.0)) for k, name in names.items()] for sd in spreads
            ]
        units = range(image.shape[1]) if averaged_apart(planned) == "slice" else [slice(None)]
        for unit in units:
            part: np.ndarray = image[:, unit]
            classes: np.ndarray = label[unit]
            averaged = class_average(part[None], classes[None], ignore_label=ignore_label)[0]
            masks = {k: classes == k for k in names}
            for channel, values, flat, sd in zip(result, part, averaged, spreads, strict=True):
                background = float(flat[masks[0]][0]) if masks[0].any() else None
                for each in channel:
                    if masks[each.value].any():
                        level = float(flat[masks[each.value]][0])
                        each.add(values[masks[each.value]], level, background, float(sd))
    return [[each for each in channel if each.levels] for channel in result]


def overlap(one: Counter[int], other: Counter[int]) -> float:
    """Area that two histograms, each scaled to mass 1, have in common: 1 for equal ones, 0 for disjoint ones."""
    n, m = sum(one.values()), sum(other.values())
    return float(sum(min(one[k] / n, other[k] / m) for k in one.keys() & other.keys()))


def table(planned: PlannedConfiguration, channels: list[list[ClassIntensities]]) -> list[dict[str, Any]]:
    """The numbers, one row a channel and class.

    A class's neighbour is the class with the nearest mean intensity.
    """
    rows = []
    for channel, classes in zip(channel_names(planned), channels, strict=True):
        for each in classes:
            others = [other for other in classes if other is not each]
            neighbour = min(others, key=lambda other: abs(other.mean - each.mean), default=None)
            rows.append(
                {
                    "channel": channel,
                    "class": each.name,
                    "label": each.value,
                    "pixels": sum(each.sizes),
                    "averaged_per": averaged_apart(planned),
                    "averages": len(each.levels),
                    "mean": each.mean,
                    "sd_images": each.sd_images,
                    "sd_within_averaged": each.sd_within,
                    "sd_averages": each.sd_averages,
                    "neighbour": neighbour.name if neighbour else None,
                    "overlap_images": overlap(each.images, neighbour.images) if neighbour else None,
                    "overlap_averages": overlap(each.averages, neighbour.averages) if neighbour else None,
                    "compared_with_background": len(each.from_background),
                    f"share_within_{NEAR_SD}_sd_of_background": each.near_background,
                }
            )
    return rows


def channel_names(planned: PlannedConfiguration) -> list[str]:
    """Names of the channels in their order."""
    names = planned.dataset_json.get("channel_names") or planned.dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def _count(histogram: Counter[int], values: NDArray[np.float32], width: float) -> None:
    bins, counts = np.unique(np.rint(values / width).astype(np.int64), return_counts=True)
    histogram.update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))

"""Simulated shifts of raw images: what another scanner, protocol or site may do to intensities.

References:
    Corruptions in steps of severity, networks compared along them: Hendrycks and Dietterich, Benchmarking neural
    network robustness to common corruptions and perturbations, ICLR 2019. Curves of intensity: Zhou et al., Models
    Genesis, MICCAI 2019 (there monotonous Bézier curves and their mirror images). Bias field as the exponential of a
    polynomial, and ghosts from lines of k-space: Pérez-García et al., TorchIO, Computer Methods and Programs in
    Biomedicine 2021.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from numpy.typing import NDArray
from scipy import ndimage

from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration

Image = NDArray[np.float32]
Label = NDArray[np.int16]


@dataclass(frozen=True)
class Shift:
    """A simulated shift.

    Attributes:
        name: For tables and files.
        title: For people.
        strongest: What it does at strength 1, in words.
        alter: From an image ``(C, Z, Y, X)``, the slices of its acquisition along Z, whose intensities lie between 0
            and 1 but for outliers, its label ``(Z, Y, X)``, the strength (0 to 1) and a source of randomness, which
            draws the same at every strength.
    """

    name: str
    title: str
    strongest: str
    alter: Callable[[Image, Label, float, np.random.Generator], Image]


Range = tuple[float, float]


def shifted(
    image: Image,
    label: Label,
    shift: Shift,
    strength: float,
    case: str,
    ranges: Sequence[Range | None] | None = None,
) -> Image:
    """An image under a shift.

    What nnU-Net takes for empty space (0 in all channels, reaching the border of the image) stays 0, since images are
    cropped by it.

    Args:
        image: Raw intensities, as nnU-Net's readers deliver them.
        label: Its classes; negative or unknown ones are classes like any other.
        shift: Which.
        strength: 0 (no change) to 1.
        case: Name of the case, which decides on everything that is random.
        ranges: Of each channel, the intensities outside of which the network sees no difference, or nnU-Net accepts
            none (:func:`ranges_of`); None where there are no such.

    Shape:
        - image, result: ``(C, Z, Y, X)``
        - label: ``(Z, Y, X)``
    """
    image = image.astype(np.float32)
    inside = create_nonzero_mask(image)
    if strength == 0 or not inside.any():
        return image
    ends = np.percentile(image[:, inside], (0.5, 99.5), axis=1).T
    limits = np.full_like(ends, (-np.inf, np.inf))
    for channel, known in enumerate(ranges or ()):
        if known is not None:
            ends[channel] = limits[channel] = known
    low, high, least, most = (each.reshape(-1, 1, 1, 1).astype(np.float32) for each in (*ends.T, *limits.T))
    scale = np.maximum(high - low, 1e-6)
    random = np.random.default_rng([zlib.crc32(case.encode()), zlib.crc32(shift.name.encode())])
    altered = shift.alter((np.clip(image, least, most) - low) / scale, label, strength, random)
    return np.where(inside, np.clip(altered * scale + low, least, most), 0).astype(np.float32)


def ranges_of(planned: PlannedConfiguration) -> list[Range | None]:
    """Ranges of intensities by channel, for :func:`shifted`.

    nnU-Net's CT normalisation clips to the window of the foreground, and its RGB normalisation accepts 0 to 255. Scaled
    to all of a CT image, from air to bone, a shift would push everything out of that window.

    Args:
        planned: Says how channels are normalised.
    """
    windows = planned.plans.foreground_intensity_properties_per_channel
    known: list[Range | None] = []
    for channel, scheme in enumerate(planned.configuration.normalization_schemes):
        window = windows.get(str(channel), {})
        if scheme == "CTNormalization":
            known.append((float(window["percentile_00_5"]), float(window["percentile_99_5"])))
        else:
            known.append((0.0, 255.0) if scheme == "RGBTo01Normalization" else None)
    return known


# --------------------------------------------------------------- contrast


def _invert(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    threshold = 1 - strength
    return np.where(image > threshold, 2 * threshold - image, image) + np.float32(strength)


def _remap(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    knots = np.linspace(0, 1, 6)
    curve = np.interp(np.clip(image, 0, 1), knots, random.uniform(size=knots.size))
    return ((1 - strength) * image + strength * curve).astype(np.float32)


def _gamma(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    sign = random.choice((-1, 1))
    return (np.clip(image, 0, None) ** np.exp(sign * 1.5 * strength)).astype(np.float32)


def _move_classes(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    classes, index = np.unique(label, return_inverse=True)
    levels = random.normal(0, image.std(), (len(image), len(classes)))[:, index.reshape(label.shape)]
    softened = ndimage.uniform_filter(levels, (0, 0, 3, 3), mode="nearest")
    return (image + strength * softened).astype(np.float32)


# ----------------------------------------------------- acquisition, artefacts


def _bias_field(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in image.shape[1:]), indexing="ij", sparse=True)
    linear, square = random.uniform(-1, 1, (2, 3))
    field = sum(a * axis + b * axis**2 for a, b, axis in zip(linear, square, axes, strict=True))
    field = field - field.mean()
    return (image * np.exp(1.2 * strength * field / max(np.abs(field).max(), 1e-6))).astype(np.float32)


def _noise(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    return (image + strength * random.normal(0, 0.2, image.shape)).astype(np.float32)


def _blur(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    sigma = 3 * strength
    return ndimage.gaussian_filter(image, (0, 0, sigma, sigma)).astype(np.float32)


def _coarsen(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    whole = torch.from_numpy(image)
    size = [max(1, round(pixels / (1 + 4 * strength))) for pixels in image.shape[2:]]
    coarse = torch.nn.functional.interpolate(whole, size=size, mode="area")
    fine = torch.nn.functional.interpolate(coarse, size=image.shape[2:], mode="bilinear", align_corners=False)
    result: Image = fine.numpy()
    return result


def _ghosts(image: Image, label: Label, strength: float, random: np.random.Generator) -> Image:
    lines = np.fft.fftfreq(image.shape[2]) * image.shape[2]
    weakened = (np.round(lines) % 4 == 0) & (np.abs(lines) > 1)
    gain = np.where(weakened, 1 - strength, 1 + strength / 3)
    gain[np.abs(lines) <= 1] = 1
    return np.fft.ifft(np.fft.fft(image, axis=2) * gain[:, None], axis=2).real.astype(np.float32)


SHIFTS = (
    Shift("inversion", "Contrast inversion", "dark and bright change places", _invert),
    Shift("remapping", "Contrast remapping", "a random curve of six points instead of the intensity", _remap),
    Shift("gamma", "Gamma", "exponent 4.5 or 0.22", _gamma),
    Shift("class_levels", "Class levels", "each class moves by one standard deviation of the image", _move_classes),
    Shift("bias_field", "Bias field", "smooth gain between 0.3 and 3.3", _bias_field),
    Shift("noise", "Noise", "Gaussian, a fifth of the intensity range", _noise),
    Shift("blur", "Blur", "Gaussian, 3 pixels in plane", _blur),
    Shift("resolution", "Resolution", "pixels five times as long in plane", _coarsen),
    Shift("ghosting", "Ghosting", "every fourth line of k-space missing, the others stronger by a third", _ghosts),
)
"""Strengths in between change continuously from no change to the strongest."""

VERSION = 1
"""Counts up with every change of a shift: scores of different versions cannot be compared."""

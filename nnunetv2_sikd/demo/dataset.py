"""Synthetic short-axis-like images from two "scanners", in nnU-Net's raw format.

One slice shows a ring (*wall*) around a *cavity*, a *crescent* beside it and a small round *vessel*, in a
body with dark regions and unlabelled blobs that are as bright as the structures. Both scanners see the same
kind of anatomy; the second has another contrast, a stronger bias field, more noise and more blur.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# Fixed before anything was trained, and never varied.
SEED = 0
SIZE = 80
SPACING_MM = 2.0
SOURCE = "Dataset901_SIKDDemoSource"
TARGET = "Dataset902_SIKDDemoTarget"
NUM_TRAINING, NUM_TEST = 50, 20
LABELS = {"background": 0, "cavity": 1, "wall": 2, "crescent": 3, "vessel": 4}

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Scanner:
    """How a scanner turns tissue levels (0 to 1) into an image.

    Attributes:
        gamma: Exponent of the tissue levels: the contrast.
        scatter: Relative standard deviation of a tissue's level between cases.
        bias: Largest relative departure of the bias field from 1, either way.
        blur_pixels: Standard deviation of the point spread.
        noise: Standard deviation of the Gaussian noise.
    """

    gamma: float
    scatter: float
    bias: float
    blur_pixels: float
    noise: float


SOURCE_SCANNER = Scanner(gamma=1.0, scatter=0.05, bias=0.1, blur_pixels=0.5, noise=0.03)
TARGET_SCANNER = Scanner(gamma=0.5, scatter=0.08, bias=0.35, blur_pixels=0.9, noise=0.07)

# Tissue: level, amplitude and grain (pixels) of its texture. Labels first, in their order.
_TISSUES = {
    "cavity": (0.85, 0.05, 2.5),
    "wall": (0.45, 0.06, 1.0),
    "crescent": (0.75, 0.08, 1.5),
    "vessel": (0.95, 0.04, 1.0),
    "air": (0.02, 0.01, 1.0),
    "body": (0.33, 0.10, 2.0),
    "dark": (0.10, 0.05, 1.0),
    "bright": (0.78, 0.08, 1.5),
    "medium": (0.48, 0.06, 1.0),
}


def write_datasets(raw: Path, progress: Callable[[], object] = lambda: None) -> None:
    """Write both data sets: source with training and test cases, target with test cases.

    Args:
        raw: Folder that becomes ``nnUNet_raw``.
        progress: Called after each case.
    """
    parts = (
        (SOURCE, SOURCE_SCANNER, "Tr", "train", NUM_TRAINING),
        (SOURCE, SOURCE_SCANNER, "Ts", "source", NUM_TEST),
        (TARGET, TARGET_SCANNER, "Ts", "target", NUM_TEST),
    )
    for part, (dataset, scanner, suffix, prefix, count) in enumerate(parts):
        images, labels = raw / dataset / f"images{suffix}", raw / dataset / f"labels{suffix}"
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for case in range(count):
            image, label = draw_case(np.random.default_rng((SEED, part, case)), scanner)
            _write(image, images / f"{prefix}_{case:03d}_0000.nii.gz")
            _write(label, labels / f"{prefix}_{case:03d}.nii.gz")
            progress()
    for dataset, num_training in ((SOURCE, NUM_TRAINING), (TARGET, 0)):
        content = {
            "channel_names": {"0": "synthetic"},
            "labels": LABELS,
            "numTraining": num_training,
            "file_ending": ".nii.gz",
        }
        (raw / dataset / "dataset.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def draw_case(rng: np.random.Generator, scanner: Scanner) -> tuple[Image, NDArray[np.uint8]]:
    """Draw one case.

    Args:
        rng: Where all randomness comes from: equal generators draw equal cases.
        scanner: What records it.

    Returns:
        Image, arbitrary units of about 0 to 1, and label, values as in :data:`LABELS`.

    Shape:
        - both: ``(SIZE, SIZE)``
    """
    tissue = _anatomy(rng)
    image = np.zeros((SIZE, SIZE))
    for index, (level, amplitude, grain) in enumerate(_TISSUES.values()):
        texture = amplitude * _unit_field(rng, grain)
        level *= 1 + scanner.scatter * rng.standard_normal()
        image = np.where(tissue == index, level + texture, image)
    image = np.clip(image, 0, None) ** scanner.gamma
    field = _unit_field(rng, SIZE / 4)
    image *= 1 + scanner.bias * field / np.abs(field).max()
    image = gaussian_filter(image, scanner.blur_pixels) + scanner.noise * rng.standard_normal(image.shape)
    label = np.where(tissue < len(LABELS) - 1, tissue + 1, 0)
    return image.astype(np.float32), label.astype(np.uint8)


def _anatomy(rng: np.random.Generator) -> NDArray[np.int64]:
    """Index into ``_TISSUES`` of each pixel. Lengths are fractions of the image's side."""
    names = list(_TISSUES)
    tissue = np.full((SIZE, SIZE), names.index("air"))

    def paint(name: str, mask: Mask) -> None:
        tissue[mask] = names.index(name)

    body = _blob(rng, (0.5, 0.5), 0.46, aspect=rng.uniform(0.9, 1.15))
    paint("body", body)
    centre = np.array((0.5, 0.52)) + rng.uniform(-0.07, 0.07, 2)
    radius, angle = rng.uniform(0.14, 0.19), rng.uniform(-0.5, 0.5)
    for side in (-1, 1):
        paint("dark", body & _blob(rng, (0.5 + rng.uniform(-0.05, 0.05), 0.5 + 0.3 * side), 0.13, aspect=1.7))
    for name in ("bright", "medium"):
        for _ in range(rng.integers(2, 5)):
            place = 0.5 + rng.uniform(-0.36, 0.36, 2)
            paint(name, body & _blob(rng, place, rng.uniform(0.03, 0.07), aspect=rng.uniform(0.6, 1.6)))
    # Around the heart nothing else: a distractor that touches a structure could not be told from it.
    paint("body", _blob(rng, centre, radius + 0.03))
    heart = _blob(rng, centre, radius)
    towards = np.array((np.sin(angle), -np.cos(angle)))
    crescent = _blob(rng, centre + towards * radius * 0.95, radius * rng.uniform(0.85, 1.0), aspect=1.25)
    paint("crescent", crescent & ~heart)
    paint("wall", heart)
    paint("cavity", _blob(rng, centre, radius * rng.uniform(0.5, 0.68)))
    vessel = centre + np.array((1.0, rng.uniform(0.2, 0.7))) * (radius + rng.uniform(0.1, 0.12))
    paint("vessel", _blob(rng, vessel, rng.uniform(0.06, 0.08), wobble=0.03))
    return tissue


def _blob(
    rng: np.random.Generator,
    centre: tuple[float, float] | NDArray[np.float64],
    radius: float,
    *,
    aspect: float = 1.0,
    wobble: float = 0.06,
) -> Mask:
    """Disc whose radius varies smoothly around it; ``aspect`` above 1 makes it taller than wide."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE - np.asarray(centre).reshape(2, 1, 1)
    y, x = y / np.sqrt(aspect), x * np.sqrt(aspect)
    angle = np.arctan2(y, x)
    edge = np.full((SIZE, SIZE), radius)
    for order in (2, 3, 4):
        edge += radius * wobble * rng.standard_normal() / order * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    return np.asarray(np.hypot(y, x) < edge)


def _unit_field(rng: np.random.Generator, grain: float) -> NDArray[np.float64]:
    """Smoothed white noise, mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.standard_normal((SIZE, SIZE)), grain)
    return np.asarray((field - field.mean()) / field.std())


def _write(array: Image | NDArray[np.uint8], file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING_MM, SPACING_MM))
    sitk.WriteImage(image, str(file))

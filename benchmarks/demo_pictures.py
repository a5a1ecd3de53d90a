"""The docs' pictures of the demo's cases: their class averages, and a case varied by class.

python benchmarks/demo_pictures.py docs/images
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import Patch

from nnunetv2_sikd.averaging import class_average
from nnunetv2_sikd.demo.dataset import LABELS, SOURCE_SCANNER, TARGET_SCANNER, Scanner, draw_case
from nnunetv2_sikd.figures.drawing import bare, colours, new_figure, save_figure, show_classes, show_grey
from nnunetv2_sikd.transforms.class_jitter import ClassContrastTransform, ClassJitterTransform

EACH = 2
LIMITS = (-1.5, 2.5)


def main() -> None:
    folder = Path(sys.argv[1])
    print(class_averages(folder / "demo_class_averages.png"))
    print(class_variation(folder / "class_variation.png"))


def class_averages(file: Path) -> Path:
    figure = new_figure(5, 3.8)
    scanners = {"Source scanner": SOURCE_SCANNER, "Unseen scanner": TARGET_SCANNER}
    palette = colours(LABELS.values())
    for row, (title, scanner) in zip(figure.subplots(len(scanners), 3), scanners.items(), strict=True):
        case = normalised_case(scanner)
        image, label = case["image"], case["segmentation"]
        for panel, shown in zip(row, (image, class_average(image[None], label[None])[0], image), strict=True):
            show_grey(panel, shown[0].numpy(), LIMITS)
            bare(panel)
        show_classes(row[2], label[0].numpy(), palette)
        row[0].set_ylabel(title)
        if scanner is SOURCE_SCANNER:
            for panel, what in zip(row, ("Image", "Class average", "Reference"), strict=True):
                panel.set_title(what, fontsize=10)
    patches = [Patch(color=palette[value], label=name) for name, value in LABELS.items() if value > 0]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return save_figure(figure, file)


def class_variation(file: Path) -> Path:
    case = normalised_case(SOURCE_SCANNER)
    torch.manual_seed(0)
    varied = [
        (title, transform(**case)["image"][0].numpy())
        for title, transform in (("jitter", ClassJitterTransform()), ("levels drawn anew", ClassContrastTransform()))
        for _ in range(EACH)
    ]
    figure = new_figure(1.5 * (2 + len(varied)), 1.8)
    axes = figure.subplots(1, 2 + len(varied))
    image, label = case["image"][0].numpy(), case["segmentation"][0].numpy()
    show_grey(axes[0], image, LIMITS)
    axes[0].set_title("image", fontsize=9)
    show_grey(axes[1], image, LIMITS)
    show_classes(axes[1], label, colours(LABELS.values()))
    axes[1].set_title("its classes", fontsize=9)
    for panel, (title, each) in zip(axes[2:], varied, strict=True):
        show_grey(panel, each, (float(np.percentile(each, 0.5)), float(np.percentile(each, 99.5))))
        panel.set_title(title, fontsize=9)
    for panel in axes:
        bare(panel)
    return save_figure(figure, file)


def normalised_case(scanner: Scanner) -> dict[str, torch.Tensor]:
    """Image and label ``(1, Y, X)`` of the scanner's first case, as nnU-Net normalises it."""
    image, label = draw_case(np.random.default_rng(0), scanner)
    return {
        "image": torch.as_tensor((image - image.mean()) / image.std(), dtype=torch.float32)[None],
        "segmentation": torch.as_tensor(label.astype(np.int16))[None],
    }


if __name__ == "__main__":
    main()

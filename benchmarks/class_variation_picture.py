"""The picture of class jitter and class contrast in the docs: a case of the demo as it is, and varied.

python benchmarks/class_variation_picture.py docs/images/class_variation.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from nnunetv2_sikd.demo.dataset import SOURCE_SCANNER, draw_case
from nnunetv2_sikd.figures.drawing import bare, colours, new_figure, save_figure, show_classes, show_grey
from nnunetv2_sikd.transforms.class_jitter import ClassContrastTransform, ClassJitterTransform

EACH = 2


def main() -> None:
    image, label = draw_case(np.random.default_rng(0), SOURCE_SCANNER)
    torch.manual_seed(0)
    case = {
        "image": torch.as_tensor((image - image.mean()) / image.std(), dtype=torch.float32)[None],
        "segmentation": torch.as_tensor(label.astype(np.int16))[None],
    }
    varied = [
        (title, transform(**case)["image"][0].numpy())
        for title, transform in (("jitter", ClassJitterTransform()), ("levels drawn anew", ClassContrastTransform()))
        for _ in range(EACH)
    ]
    figure = new_figure(1.5 * (2 + len(varied)), 1.8)
    axes = figure.subplots(1, 2 + len(varied))
    show_grey(axes[0], case["image"][0].numpy(), (-1.5, 2.5))
    axes[0].set_title("image", fontsize=9)
    show_grey(axes[1], case["image"][0].numpy(), (-1.5, 2.5))
    show_classes(axes[1], label, colours(np.unique(label)))
    axes[1].set_title("its classes", fontsize=9)
    for panel, (title, each) in zip(axes[2:], varied, strict=True):
        show_grey(panel, each, (float(np.percentile(each, 0.5)), float(np.percentile(each, 99.5))))
        panel.set_title(title, fontsize=9)
    for panel in axes:
        bare(panel)
    print(save_figure(figure, Path(sys.argv[1])))


if __name__ == "__main__":
    main()

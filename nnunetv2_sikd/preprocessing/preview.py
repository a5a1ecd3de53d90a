"""A picture of images, their class averages and their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.preprocessing.hook import copy_spec
from nnunetv2_sikd.preprocessing.planned import PlannedConfiguration
from nnunetv2_sikd.preprocessing.stored import open_array

# Okabe and Ito's colours, distinguishable with any colour vision.
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00", "#999999")


def draw_preview(dataset: str | int, configuration: str, plans: str, cases: int) -> Path:
    """Draw image, class average and label of some cases, each at the slice with the most foreground.

    Args:
        dataset: Data set name or id.
        configuration: Configuration name.
        plans: Plans identifier.
        cases: Number of cases, spread evenly over the data set.

    Returns:
        The PNG, beside the folder of the copies.

    Raises:
        SIKDError: There are no copies.
    """
    planned = PlannedConfiguration.load(dataset, configuration, plans)
    spec = copy_spec(planned)
    identifiers = sorted(nnUNetDatasetBlosc2.get_identifiers(str(spec.target))) if spec.target.is_dir() else []
    if not identifiers:
        raise SIKDError(f"{spec.target}: has no copies; run nnUNetv2_sikd preprocess -d {dataset} -c {configuration}")
    chosen = [
        identifiers[i] for i in np.linspace(0, len(identifiers) - 1, min(cases, len(identifiers))).round().astype(int)
    ]

    names = _label_names(planned)
    shown_labels = sorted(names)
    palette = ListedColormap([COLOURS[i % len(COLOURS)] for i in range(len(shown_labels))])
    figure = Figure(figsize=(7.5, 2.5 * len(chosen) + 0.5), dpi=300, layout="constrained")
    FigureCanvasAgg(figure)
    for row, case in zip(figure.subplots(len(chosen), 3, squeeze=False), chosen, strict=True):
        # Not with nnU-Net's load_case, which also loads the case's pickle.
        data, seg, copy = (
            open_array(folder / f"{case}{suffix}")
            for folder, suffix in ((spec.source, ".b2nd"), (spec.source, "_seg.b2nd"), (spec.target, ".b2nd"))
        )
        label = seg[0]
        z = int(((label > 0) & (label != spec.ignore_label)).sum(axis=(1, 2)).argmax())
        image = data[0, z]
        low, high = np.percentile(image, (0.5, 99.5))
        for axis, picture in zip(row, (image, copy[0, z]), strict=False):
            axis.imshow(picture, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        row[2].imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
        index = np.searchsorted(shown_labels, np.clip(label[z], 1, shown_labels[-1]))
        overlay = np.ma.masked_where(label[z] <= 0, index)
        row[2].imshow(
            overlay, cmap=palette, vmin=-0.5, vmax=len(shown_labels) - 0.5, alpha=0.6, interpolation="nearest"
        )
        row[0].set_ylabel(case, fontsize=7)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(figure.axes[:3], ("image", "class average", "label"), strict=True):
        axis.set_title(title, fontsize=10)
    handles = [Patch(color=palette(i), label=names[label]) for i, label in enumerate(shown_labels)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False, fontsize=8)
    file = spec.target.with_name(f"{spec.target.name}_preview.png")
    figure.savefig(file)
    return file


def _label_names(planned: PlannedConfiguration) -> dict[int, str]:
    """Name of each foreground label value; in region-based data sets the regions that hold it."""
    names: dict[int, list[str]] = {}
    for name, values in planned.dataset_json["labels"].items():
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if int(value) > 0:
                names.setdefault(int(value), []).append(name)
    return {value: ", ".join(parts) for value, parts in names.items()}

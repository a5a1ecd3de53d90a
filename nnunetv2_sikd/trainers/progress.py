"""The picture of a distillation in progress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_distillation(
    segmentation: Sequence[float], distillation: Sequence[float], described: str, folder: str | Path
) -> None:
    """Draw both training losses over the epochs into ``progress_sikd.png``.

    Args:
        segmentation: nnU-Net's loss, one value per epoch.
        distillation: How far the features are from the teacher's, one value per epoch.
        described: What the latter is and how it is weighted, for the legend.
        folder: Where to.
    """
    # nnU-Net sets huge fonts for the whole process.
    with style.context("default", after_reset=True):
        figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        left = figure.subplots()
        right = left.twinx()
        epochs = range(len(distillation))
        left.plot(epochs, segmentation[: len(epochs)], color="tab:blue", label="segmentation loss")
        right.plot(epochs, distillation, color="tab:orange", label=f"distillation loss ({described})")
        right.set_ylim(bottom=0)
        left.set(xlabel="epoch", ylabel="segmentation loss")
        right.set_ylabel("distillation loss")
        left.figure.legend(loc="outside upper center", ncols=2, frameon=False)
        figure.savefig(Path(folder) / "progress_sikd.png")

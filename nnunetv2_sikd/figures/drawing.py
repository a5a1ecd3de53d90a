"""What the figures share: a canvas without a display, colours, and files that are never half-written."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from nnunetv2_sikd.errors import SIKDError
from nnunetv2_sikd.files import written_whole
from nnunetv2_sikd.untrusted import as_cell

# Okabe and Ito's palette: told apart with any colour vision. Black is background's.
_BACKGROUND = "#000000"
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442")
_DPI = 200
BETTER, WORSE, UNCLEAR = "#0072B2", "#D55E00", "#595959"


def colours(classes: Iterable[int]) -> dict[int, str]:
    """A colour for each class (label value); the palette repeats after seven foreground classes."""
    foreground = [value for value in classes if value > 0]
    return {0: _BACKGROUND, **{value: _COLOURS[i % len(_COLOURS)] for i, value in enumerate(foreground)}}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def show_grey(axes: Axes, image: NDArray[np.float32], limits: tuple[float, float]) -> None:
    """Show an image ``(Y, X)`` in grey between two intensities, pixels as they are."""
    low, high = limits
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")


def show_classes(axes: Axes, label: NDArray[np.int16], palette: Mapping[int, str]) -> None:
    """Lay the foreground classes of a label ``(Y, X)`` over what the axes show."""
    overlay = np.zeros((*label.shape, 4))
    for value, colour in palette.items():
        if value > 0:
            overlay[label == value] = to_rgba(colour, 0.6)
    axes.imshow(overlay, interpolation="nearest")


def outline_classes(axes: Axes, label: NDArray[np.int16], palette: Mapping[int, str], colour: str = "white") -> None:
    """Draw the outline of each foreground class of a label ``(Y, X)``."""
    for value in palette:
        if value > 0 and (label == value).any() and not (label == value).all():
            axes.contour(label == value, levels=[0.5], colors=colour, linewidths=0.7)


def bare(axes: Axes) -> None:
    """Take away ticks and frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plain(axes: Axes) -> None:
    """Leave only the axes that carry numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)


def save_figure(figure: Figure, file: Path) -> Path:
    """Write a PNG, replacing an earlier one only once it is whole."""
    try:
        for text in figure.findobj(Text):
            text.set_parse_math(False)  # a name with two "$" is no formula
        with written_whole(file) as partial:
            figure.savefig(partial)
    except OSError as error:
        raise _cannot_write(file, error) from error
    return file


def save_table(rows: list[dict[str, Any]], file: Path) -> Path:
    """Write a CSV, replacing an earlier one only once it is whole; numbers with six significant digits."""
    try:
        with written_whole(file) as partial, open(partial, "w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {key: as_cell(value) if isinstance(value, str) else _text(value) for key, value in row.items()}
                )
    except OSError as error:
        raise _cannot_write(file, error) from error
    return file


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cannot_write(file: Path, error: OSError) -> SIKDError:
    return SIKDError(f"{file}: cannot be written ({error.strerror or error}); choose another folder with -o")

"""What the report's pictures share: size, colours, and bytes that a page can hold."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

# Okabe and Ito's palette: told apart with any colour vision.
LABEL_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
WIDTH = 5.0  # inches: text of 9 points stays readable when a phone shows it 350 pixels wide


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        name: File name in ``pictures/``.
        data: Its content.
        alt: What it shows, for those who do not see it.
        caption: How to read it.
        width: Inches at which its text has the size of a caption; 0 for pictures without text.
    """

    name: str
    data: bytes
    alt: str
    caption: str = ""
    width: float = 0.0

    @property
    def uri(self) -> str:
        """The picture as a data URI, for a page that needs no other file."""
        kind = "svg+xml" if self.name.endswith(".svg") else "png"
        return f"data:image/{kind};base64,{b64encode(self.data).decode()}"


def new_figure(height: float, width: float = WIDTH, dpi: int = 100) -> Figure:
    """An empty figure; sizes in inches."""
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_svg(figure: Figure) -> bytes:
    """A figure as SVG, the same bytes each time."""
    buffer = BytesIO()
    literal(figure)
    with matplotlib.rc_context({"svg.hashsalt": "nnunetv2_sikd", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_png(figure: Figure) -> bytes:
    """A figure as PNG of at most 256 colours: a third of the size, and no difference to see in grey images."""
    buffer = BytesIO()
    literal(figure)
    figure.savefig(buffer, format="png")
    small = BytesIO()
    with Image.open(buffer) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def literal(figure: Figure) -> None:
    """Show all text as it is: a name with two ``$`` is no formula, and an invalid one would be an error."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)

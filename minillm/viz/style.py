"""One look for every picture: a few colours that the colour-blind can tell apart, each with one meaning.

The palette is Okabe and Ito's (jfly.uni-koeln.de/color). A colour is used for its meaning and for nothing else, in
every chapter: a reader who has learned what orange is in chapter 1 knows it in chapter 13. Words are INK or FAINT, or
PAPER on a dark bar: the palette's own colours are too pale to read on white.

A picture is an opaque light card in light and in dark themes. No single ink reads well on both without a card: text
needs a contrast of 4.5:1 (WCAG 2), and the best that any colour reaches on white and on #111 at once is 4.3:1.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

PREFILL: Final = "#E69F00"
DECODE: Final = "#0072B2"
KV: Final = "#56B4E9"
WASTE: Final = "#BBBBBB"
ACCEPTED: Final = "#009E73"
REJECTED: Final = "#D55E00"
BONUS: Final = "#CC79A7"
INK: Final = "#222222"
FAINT: Final = "#6E6E6E"
PAPER: Final = "#FFFFFF"

PIXELS_PER_INCH: Final = 96  # of CSS: at normal size 9 points are 12 pixels
SHARPNESS: Final = 2  # pixels of the file for each pixel of CSS
SMALLEST: Final = 8.0  # points, 10.7 pixels of CSS

RC = {
    "savefig.dpi": 150,
    "figure.facecolor": PAPER,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.w_pad": 0.08,  # inches
    "figure.constrained_layout.h_pad": 0.08,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this block to draw in the course's look."""
    with mpl.rc_context(RC):  # type: ignore[arg-type]
        yield


class Picture(Figure):
    """A figure that shows itself in a notebook. It knows nothing of pyplot, so it is drawn once and not kept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dpi=PIXELS_PER_INCH * SHARPNESS, **options)

    @property
    def shown_width(self) -> int:
        """Return the width at which the picture is shown, in pixels of CSS."""
        return round(self.get_figwidth() * PIXELS_PER_INCH)

    def png(self) -> bytes:
        """Return the picture as a PNG file, sharp on screens with SHARPNESS pixels for each pixel of CSS.

        A palette of 256 colours makes the file less than half as large, and does not change a plain colour.
        """
        canvas, file = FigureCanvasAgg(self), io.BytesIO()
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        image = Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(file, "PNG")
        return file.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png(), {"width": self.shown_width}


def ink_on(color: str) -> str:
    """Return PAPER or INK: whichever is easier to read on `color`."""
    channels = (c / 12.92 if c <= 0.04 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    luminance = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
    return INK if luminance > 0.2 else PAPER


def printable(text: str) -> str:
    """Return `text` on one line, with a dot for each character that the pictures' font lacks."""
    return "".join(c if c.isprintable() and c < "\u0250" else "·" for c in " ".join(text.split()))


def quiet(axes: Axes) -> None:
    """Remove ticks and line of the x axis: the bars carry their own numbers."""
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])


def end_labels(axes: Axes, x: float, labels: Mapping[str, float]) -> None:
    """Write each label to the right of its line's end at (x, y), close ones one above the other.

    Call it when the limits of the axes are set.
    """
    scale = axes.transScale + axes.transLimits  # to shares of the axes
    figure = axes.get_figure(root=True)
    assert figure is not None
    height = 0.75 * 72 * figure.get_figheight()  # points: the axes' part of the figure
    lowest = -1.0
    for text, y in sorted(labels.items(), key=lambda label: label[1]):
        share = scale.transform((x, y))[1]
        lowest = max(share, lowest + 14 / height)
        shift = (8, (lowest - share) * height)
        axes.annotate(text, (x, y), shift, textcoords="offset points", va="center", fontsize=9)

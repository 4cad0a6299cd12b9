"""One look for every picture: a few colours that the colour-blind can tell apart, each with one meaning.

The palette is Okabe and Ito's (jfly.uni-koeln.de/color). A colour is used for its meaning and for nothing else, in
every chapter: who has learned what orange is in chapter 1 knows it in chapter 13.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PREFILL: Final = "#E69F00"
DECODE: Final = "#0072B2"
KV: Final = "#56B4E9"
WASTE: Final = "#BBBBBB"
ACCEPTED: Final = "#009E73"
REJECTED: Final = "#D55E00"
BONUS: Final = "#CC79A7"
INK: Final = "#222222"
FAINT: Final = "#888888"

RC = {
    "figure.dpi": 110,
    "savefig.dpi": 150,
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
}


@contextmanager
def style() -> Iterator[None]:
    """Draw inside this block to draw in the course's look."""
    with mpl.rc_context(RC):  # type: ignore[arg-type]
        yield


class Picture(Figure):
    """A figure that shows itself in a notebook. It knows nothing of pyplot, so it is drawn once and not kept."""

    def png(self) -> bytes:
        """The picture as a PNG file."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=RC["figure.dpi"])
        return file.getvalue()

    _repr_png_ = png


def quiet(axes: Axes) -> None:
    """An axis whose bars carry their own numbers needs no ticks."""
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([])

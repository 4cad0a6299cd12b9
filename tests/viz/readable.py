"""What is hard to read in a picture: small or pale words, words on words, words that the edge cuts."""

from collections.abc import Iterator

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.text import Text

from minillm.viz.style import FAINT, INK, PAPER, REJECTED, SMALLEST, Picture

READABLE = {color.lower() for color in (INK, FAINT, PAPER, REJECTED)}
TOUCH = 2.0  # pixels by which the boxes of two texts may overlap: a box is taller than its letters


def faults(picture: Picture) -> list[str]:
    """Return a sentence for each thing that a reader would stumble over."""
    picture.draw_without_rendering()
    texts = [text for text in _texts(picture) if text.get_visible() and text.get_text().strip()]
    found = [
        f"{text.get_text()!r} is {text.get_fontsize():g} points, below {SMALLEST:g}"
        for text in texts
        if text.get_fontsize() < SMALLEST
    ]
    found += [
        f"{text.get_text()!r} is pale: {to_hex(text.get_color())}"
        for text in texts
        if to_hex(text.get_color()) not in READABLE
    ]
    boxes = [(text, text.get_window_extent().padded(-TOUCH)) for text in texts]
    for i, (text, box) in enumerate(boxes):
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= picture.bbox.x1 and box.y1 <= picture.bbox.y1
        if not inside:
            found.append(f"{text.get_text()!r} is cut by the edge")
        for other, its_box in boxes[i + 1 :]:
            slanted = text.get_rotation() % 90 and text.get_rotation() == other.get_rotation()
            if not slanted and box.overlaps(its_box):
                found.append(f"{text.get_text()!r} is on {other.get_text()!r}")
    return found


def _texts(picture: Picture) -> Iterator[Text]:
    """Every text that is drawn. Of an axis' labels, those within its limits."""
    of_axes = {text for axes in picture.axes for axis in _axes_of(axes) for text in axis.findobj(Text)}
    yield from (text for text in picture.findobj(Text) if text not in of_axes)
    for axes in picture.axes:
        if axes.axison:
            for axis in _axes_of(axes):
                yield axis.label
                low, high = sorted(axis.get_view_interval())
                ticks = (tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)
                yield from (tick.label1 for tick in ticks)


def _axes_of(axes: Axes) -> tuple[Axis, Axis]:
    return axes.xaxis, axes.yaxis

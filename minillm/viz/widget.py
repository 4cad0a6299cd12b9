"""Pictures that change under sliders.

JupyterLab shows a widget. GitHub, nbconvert and other static viewers cannot run one, so the output of the cell also
contains a picture.
"""

import asyncio
import base64
import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import ipywidgets as widgets
from IPython.display import display

from minillm.viz.style import Picture

BURST = 0.05  # seconds in which values that arrive from a page count as one change

Control: TypeAlias = tuple[float, float, float] | Sequence[str] | bool | Any  # Any: an ipywidget


class Explorer:
    """Show `draw(**values)` under one control for each value, and draw again whenever a control moves.

    A control is (low, high, first value) for a slider (of whole numbers if all three are), a list of names for a
    menu, or an ipywidget. `values` are the current values. `set(name=value)` moves controls and draws once.

    A drawing takes longer than a mouse needs for its next move. So a change that comes from the page is drawn a
    moment later, with the values of that moment, and values that have been passed over are never drawn.
    """

    def __init__(self, draw: Callable[..., Picture], **controls: Control) -> None:
        self._draw = draw
        self._controls = {name: _control(name, control) for name, control in controls.items()}
        self._image = image_widget()
        for control in self._controls.values():
            control.observe(self._changed, names="value")
        self._stale = False  # whether a value has changed since the last drawing
        self.num_draws = 0
        self._redraw()
        self.box = widgets.VBox([*self._controls.values(), self._image])

    @property
    def values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self._controls.items()}

    @property
    def png(self) -> bytes:
        """Return the picture of the current values."""
        self._catch_up()
        return bytes(self._image.value)

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            self._controls[name].value = value
        self._catch_up()

    def _changed(self, _change: object) -> None:
        if not self._stale:
            self._stale = True
            with contextlib.suppress(RuntimeError):  # without an event loop there is no page: `png` draws
                asyncio.get_running_loop().call_later(BURST, self._catch_up)

    def _catch_up(self) -> None:
        if self._stale:
            self._redraw()

    def _redraw(self) -> None:
        self._stale = False
        show(self._image, self._draw(**self.values))
        self.num_draws += 1

    def _ipython_display_(self) -> None:
        self._catch_up()
        data, metadata = output(self.box, self._image)
        display(data, metadata=metadata, raw=True)


def image_widget() -> widgets.Image:
    """Return a widget for pictures. It is as wide as the picture, or as the page where that is narrower."""
    # Without a layout of its own, a box stretches an image to its width and blurs it.
    return widgets.Image(format="png", layout=widgets.Layout(max_width="100%", align_self="flex-start"))


def show(image: widgets.Image, picture: Picture) -> None:
    with image.hold_sync():
        image.value, image.width = picture.png(), str(picture.shown_width)


def output(widget: widgets.Widget, image: widgets.Image) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the output of a cell and its metadata: `widget`, and the picture for viewers without widgets."""
    data: dict[str, Any] = dict(widget._repr_mimebundle_())
    data["image/png"] = base64.b64encode(image.value).decode()
    return data, {"image/png": {"width": int(image.width)}}


def _control(name: str, control: Control) -> widgets.Widget:
    label = name.replace("_", " ")
    style, layout = {"description_width": "11em"}, widgets.Layout(width="34em")
    if isinstance(control, widgets.Widget):
        return control
    if isinstance(control, bool):
        return widgets.Checkbox(value=control, description=label, style=style, layout=layout)
    if isinstance(control, tuple):
        low, high, value = control
        whole = all(isinstance(number, int) for number in control)
        slider = widgets.IntSlider if whole else widgets.FloatSlider
        # About a hundred steps, each a round number: the browser moves a first value that lies between two steps.
        step = {} if whole else {"step": 10 ** round(math.log10((high - low) / 100))}
        return slider(value=value, min=low, max=high, description=label, style=style, layout=layout, **step)
    return widgets.Dropdown(options=list(control), description=label, style=style, layout=layout)

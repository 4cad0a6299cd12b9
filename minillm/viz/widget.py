"""Pictures that change: under sliders (`Explorer`), or while a run goes on (`Live`).

JupyterLab shows a widget. GitHub, nbconvert and other static viewers cannot run one, so the output of the cell also
contains a picture.
"""

import base64
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import ipywidgets as widgets
from IPython.display import DisplayHandle, display

from minillm.measure.trace import StepRecord, Trace
from minillm.viz.style import Picture

Control: TypeAlias = tuple[float, float, float] | Sequence[str] | bool | Any  # Any: an ipywidget


class Explorer:
    """Show `draw(**values)` under one control for each value, and draw again whenever a control moves.

    A control is (low, high, first value) for a slider (of whole numbers if all three are), a list of names for a
    menu, or an ipywidget. `values` are the current values. `set(name=value)` moves a control.
    """

    def __init__(self, draw: Callable[..., Picture], **controls: Control) -> None:
        self._draw = draw
        self._controls = {name: _control(name, control) for name, control in controls.items()}
        # Without a layout of its own, the box stretches the image to its width and blurs it.
        self._image = widgets.Image(
            format="png", layout=widgets.Layout(max_width="100%", align_self="flex-start")
        )
        for control in self._controls.values():
            control.observe(self._redraw, names="value")
        self.num_draws = 0
        self._redraw()
        self.box = widgets.VBox([*self._controls.values(), self._image])

    @property
    def values(self) -> dict[str, Any]:
        return {name: control.value for name, control in self._controls.items()}

    @property
    def png(self) -> bytes:
        """Return the current picture."""
        return bytes(self._image.value)

    def set(self, **values: Any) -> None:
        for name, value in values.items():
            self._controls[name].value = value

    def _redraw(self, _change: object = None) -> None:
        self._image.value = self._draw(**self.values).png()
        self.num_draws += 1

    def _ipython_display_(self) -> None:
        display(_bundle(self.box, self.png), raw=True)


class Live:
    """Draw a picture of a run again and again while the run goes on.

    `draw` makes the picture from the records so far. Display the object, call `update` while the run goes on, and call
    `finish` after it. Raises ValueError if `trace` is None, as it is for an engine that does not record.
    """

    def __init__(self, draw: Callable[[Trace], Picture], trace: Trace | None, every: int = 1) -> None:
        if trace is None:
            raise ValueError("This engine records nothing. Make the LLM with trace=True.")
        self._draw, self._trace, self._every = draw, trace, every
        self._image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        self._handle: DisplayHandle | None = None
        self.num_draws = 0

    @property
    def png(self) -> bytes:
        """Return the newest picture, or no bytes before the first."""
        return bytes(self._image.value)

    def update(self) -> None:
        """Draw after the first step of the run, and once every `every` steps from there on."""
        if len(self._trace.of(StepRecord)) > self.num_draws * self._every:
            self._redraw()

    def finish(self) -> None:
        """Draw the end of the run, and store that picture in the cell for viewers without widgets."""
        self._redraw()
        if self._handle is not None:
            self._handle.update(_bundle(self._image, self.png), raw=True)

    def _redraw(self) -> None:
        self._image.value = self._draw(self._trace).png()
        self.num_draws += 1

    def _ipython_display_(self) -> None:
        self._handle = display(_bundle(self._image, self.png), raw=True, display_id=True)


def _bundle(widget: widgets.Widget, png: bytes) -> dict[str, Any]:
    """Return the output of a cell: the widget, and the picture (if there is one) for viewers without widgets."""
    picture = {"image/png": base64.b64encode(png).decode()} if png else {}
    return {**widget._repr_mimebundle_(), **picture}


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

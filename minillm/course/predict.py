"""Predict, then measure: the learner commits to a number before seeing the answer. Chapter 14 uses these numbers.

`predict(key, question, ...)` shows a slider and a button. The number is stored only when the learner presses the
button, so an untouched slider is no prediction. `reveal(key, measured)` shows both numbers next to each other.
"""

import json
import math
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from minillm import store
from minillm.course.progress import data_dir
from minillm.course.say import say


@dataclass(slots=True)
class Prediction:
    """One question with the predicted number, the date, and the measured number (None until measured)."""

    question: str
    unit: str
    predicted: float
    date: str
    measured: float | None = None

    @property
    def factor(self) -> float | None:
        """Return the larger of the two numbers over the smaller, or None if one is missing or not positive."""
        if self.measured is None or self.predicted <= 0 or self.measured <= 0:
            return None
        return max(self.predicted / self.measured, self.measured / self.predicted)


def predictions() -> dict[str, Prediction]:
    """Return all predictions so far by key: only the valid ones of a damaged file, none of an unreadable one."""
    try:
        known, damage = store.records(Prediction, _read(_path()))
    except (OSError, RuntimeError, ValueError) as error:
        known, damage = {}, str(error)
    if damage:
        say(f"Your earlier predictions cannot all be read ({damage}).")
    return known


def _path() -> Path:
    return data_dir() / "predictions.json"


def _read(path: Path) -> Any:
    try:
        return store.read(path)
    except FileNotFoundError:
        return {}


def _store(key: str, prediction: Prediction) -> str:
    """Store a prediction, and return the sentence to show."""
    try:
        path = _path()
        with store.locked(path.parent):
            try:
                content = _read(path)
                known, damage = store.records(Prediction, content)
            except ValueError as error:
                content, known, damage = {}, {}, str(error)
            if damage:
                store.set_aside(path)
            entries = {old: content[old] for old in known} | {key: asdict(prediction)}
            store.write(path, json.dumps(entries, indent=1) + "\n")
    except (OSError, RuntimeError) as error:
        return f"It cannot be kept beyond this page: {error}. MINILLM_DATA can name another folder."
    return "Kept. Now measure."


def predict(key: str, question: str, *, low: float, high: float, unit: str) -> widgets.Widget:
    """Return a box that asks `question` and stores the answer under `key` ("01.ttft").

    The slider goes from `low` to `high` in `unit`. Its scale is logarithmic if `high` is at least 50 times `low`.
    """
    if not low < high:
        raise ValueError(f"low={low} and high={high}: a slider needs low < high")
    style, layout = {"description_width": "initial"}, widgets.Layout(width="34em")
    if low > 0 and high / low >= 50:
        base = {"min": math.log10(low), "max": math.log10(high), "step": 0.01, "readout_format": ".3g"}
        slider = widgets.FloatLogSlider(value=low, description=unit, style=style, layout=layout, **base)
    else:
        slider = widgets.FloatSlider(
            value=low,
            min=low,
            max=high,
            step=(high - low) / 200,
            description=unit,
            style=style,
            layout=layout,
            readout_format=".3g",
        )
    button, said = widgets.Button(description="I predict this"), widgets.Label()
    known = predictions().get(key)
    if known is not None:
        slider.value = min(max(known.predicted, low), high)
        said.value = f"You said {known.predicted:.3g} {unit} on {known.date}."

    def commit(_: widgets.Button) -> None:
        today = date.today().isoformat()
        said.value = _store(key, Prediction(question, unit, float(slider.value), today))

    button.on_click(commit)
    box = _Question([widgets.HTML(f"<b>Predict.</b> {question}"), widgets.HBox([slider, button]), said])
    box.question = f"{question} (between {low:g} and {high:g} {unit})"
    return box


class _Question(widgets.VBox):  # type: ignore[misc]
    """The box, and the question in words for viewers that show no widgets."""

    question = ""

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        words = {"text/markdown": f"**Predict.** {self.question}", "text/plain": f"Predict: {self.question}"}
        return {**super()._repr_mimebundle_(**kwargs), **words}


def reveal(key: str, measured: float) -> None:
    """Print the prediction and the measurement, and keep the measurement. Print nothing without a prediction."""
    known = predictions().get(key)
    if known is None:
        return
    known.measured = float(measured)
    _store(key, known)
    off = "" if known.factor is None else f": off by a factor of {known.factor:.1f}"
    say(f"You predicted {known.predicted:.3g} {known.unit}; measured {known.measured:.3g} {known.unit}{off}.")

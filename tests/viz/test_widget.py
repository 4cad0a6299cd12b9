"""The picture that follows a run: when it is drawn, and what a cell shows and stores."""

import base64
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from minillm.measure.trace import Phases, StepRecord, TokenRecord, Trace
from minillm.viz import widget
from minillm.viz.style import Picture
from minillm.viz.widget import Live


class Screen:
    """What a notebook shows of one cell, in the order in which it was shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def display(self, content: dict[str, Any], raw: bool, display_id: bool) -> "Screen":
        assert raw and display_id
        self.update(content, raw)
        return self

    def update(self, content: dict[str, Any], raw: bool) -> None:
        self.shown.append(content)


def test_it_draws_every_so_many_steps_and_stores_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, trace = Screen(), Trace()
    seen: list[int] = []
    monkeypatch.setattr(widget, "display", screen.display)

    def draw(so_far: Trace) -> Picture:
        seen.append(len(so_far.of(StepRecord)))
        return Picture(figsize=(1, 1 + seen[-1]))

    live = Live(draw, trace, every=3)
    live._ipython_display_()
    assert not seen and live.png == b""
    for number in range(8):
        trace.append(TokenRecord(number, "a", number, 5))
        live.update()
        trace.append(StepRecord(number, number, number + 1, [], 0, 1, Phases(0, 0, 0, 0)))
        live.update()
    assert seen == [1, 4, 7] and live.num_draws == 3
    live.finish()
    assert seen == [1, 4, 7, 8] and live.png.startswith(b"\x89PNG")
    first, last = screen.shown
    assert "image/png" not in first and base64.b64decode(last["image/png"]) == live.png
    assert "application/vnd.jupyter.widget-view+json" in first


def test_it_needs_no_screen() -> None:
    live = Live(lambda so_far: Picture(figsize=(1, 1)), Trace())
    live.finish()
    assert live.num_draws == 1


def test_it_needs_a_trace() -> None:
    with pytest.raises(ValueError, match="trace=True"):
        Live(lambda so_far: Picture(), None)

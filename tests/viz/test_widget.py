"""Pictures under sliders: when each is drawn, and what a cell shows and stores."""

import asyncio
import base64
from typing import Any

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from minillm.viz import widget
from minillm.viz.style import Picture
from minillm.viz.widget import BURST, Explorer


class Screen:
    """The outputs of one notebook cell, in the order in which they were shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.widths: list[int | None] = []

    def display(
        self, content: dict[str, Any], metadata: dict[str, Any], raw: bool, display_id: bool = False
    ) -> "Screen":
        self.update(content, metadata, raw)
        return self

    def update(self, content: dict[str, Any], metadata: dict[str, Any], raw: bool) -> None:
        assert raw
        self.shown.append(content)
        self.widths.append(metadata.get("image/png", {}).get("width"))


def explorer(drawn: list[int]) -> Explorer:
    """A picture of a slider `x` from 0 to 99, which is (x + 1) / 10 inches wide; `drawn` are the values drawn."""

    def draw(x: int) -> Picture:
        drawn.append(x)
        return Picture(figsize=((x + 1) / 10, 0.5))

    return Explorer(draw, x=(0, 99, 0))


def test_a_burst_of_changes_is_drawn_once_with_the_last_value() -> None:
    drawn: list[int] = []

    async def drag() -> None:
        ui = explorer(drawn)
        slider, image = ui.box.children
        for x in range(30):
            slider.value = x + 1
            await asyncio.sleep(0)
        assert drawn == [0]
        await asyncio.sleep(3 * BURST)
        assert image.width == str(round(3.1 * 96))
        slider.value = 50  # the next burst is drawn too
        await asyncio.sleep(3 * BURST)

    asyncio.run(drag())
    assert drawn == [0, 30, 50]


def test_a_drawing_that_fails_does_not_stop_later_ones() -> None:
    def draw(x: int) -> Picture:
        if x == 1:
            raise ZeroDivisionError
        return Picture(figsize=(x + 1, 1))

    async def drag() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        ui = Explorer(draw, x=(0, 9, 0))
        slider, image = ui.box.children
        for slider.value in (1, 2):
            await asyncio.sleep(3 * BURST)
        return str(image.width)

    assert asyncio.run(drag()) == "288"


def test_set_moves_all_its_controls_and_draws_at_once() -> None:
    drawn: list[tuple[int, bool]] = []

    def draw(x: int, y: bool) -> Picture:
        drawn.append((x, y))
        return Picture(figsize=(1, 1))

    def move() -> None:
        Explorer(draw, x=(0, 9, 0), y=False).set(x=3, y=True)

    async def move_in_a_cell() -> None:
        move()

    move()
    asyncio.run(move_in_a_cell())
    assert drawn == [(0, False), (3, True)] * 2


def test_without_an_event_loop_the_picture_is_never_stale() -> None:
    drawn: list[int] = []
    ui = explorer(drawn)
    ui.box.children[0].value = 9
    before = bytes(ui.box.children[1].value)
    assert ui.png != before and drawn == [0, 9]


def test_a_cell_stores_the_picture_and_how_wide_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(widget, "display", screen.display)
    ui = explorer([])
    ui.set(x=19)
    ui._ipython_display_()
    (shown,) = screen.shown
    assert base64.b64decode(shown["image/png"]) == ui.png and screen.widths == [192]
    assert ui.box.children[-1].width == "192"
    assert ui.box.children[-1].layout.align_self == "flex-start"  # a box stretches what says nothing

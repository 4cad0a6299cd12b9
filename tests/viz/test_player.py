"""The player's Python side: what it sends, what it answers, and what a cell stores."""

import base64
import struct
import time
from typing import Any

import pytest

pytest.importorskip("anywidget")

from matplotlib.colors import to_hex

from minillm import SamplingParams
from minillm.measure.trace import (
    Phases,
    RequestAdded,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)
from minillm.viz import player as module
from minillm.viz.player import Player
from minillm.viz.stand_in import stand_in
from minillm.viz.style import ACCEPTED, DECODE, REJECTED
from tests.engine import tiny
from tests.player.replay import Replay

PARAMS = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)


@pytest.fixture
def llm():
    with tiny.llm(trace=True) as llm:
        yield llm


@pytest.fixture
def sent(monkeypatch):
    """The messages to the browser."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(
        module.PlayerWidget, "send", lambda self, content, buffers=None: messages.append(content)
    )
    return messages


def test_all_pieces_together_are_the_whole(llm, sent):
    llm.generate([[7, 8, 9]], PARAMS)
    player = Player(llm)
    first = player.whole()
    for prompt in ([7, 8, 9, 10], [11]):
        llm.generate([prompt], PARAMS)
        player.update()
    player.update()
    assert len(sent) == 2, "nothing new is not sent"
    replay, whole = Replay(), Replay()
    for piece in (first, *(message["piece"] for message in sent)):
        replay.append(piece)
    whole.append(player.whole())
    assert replay == whole and len(replay.steps) == len(llm.trace.of(StepRecord))


def test_it_follows_a_run_and_says_when_it_ends(llm, sent):
    player = Player(llm)
    player.follow()
    player.follow()  # again: nothing happens
    llm.generate([[7, 8, 9]], PARAMS)
    while not sent or not sent[-1]["piece"]["events"]:
        time.sleep(0.01)
    player.finish()
    assert sent[0]["live"] and not sent[-1]["live"]
    assert sum(len(message["piece"]["events"]) for message in sent) == player.recording.num_events


def test_a_browser_that_missed_something_gets_it(llm, sent):
    llm.generate([[7, 8, 9]], PARAMS)
    player = Player(llm)
    player._on_message(player.widget, {"kind": "want", "start": 2, "first_word": 1}, [])
    piece = sent[0]["piece"]
    assert piece["start"] == 2 and piece["events"] == player.whole()["events"][2:]
    assert piece["words"] == player.whole()["words"][1:]


def test_a_page_that_opens_later_gets_everything(llm):
    player = Player(llm)
    llm.generate([[7, 8, 9]], PARAMS)
    player.update()
    assert player.widget.get_state("recording")["recording"] == player.whole()


def test_a_cell_stores_three_parts_and_the_end_of_the_run(llm, sent, monkeypatch):
    shown: list[dict[str, Any]] = []

    class Handle:
        def __init__(self, place: int) -> None:
            self.place = place

        def update(self, content: dict[str, Any], metadata: dict[str, Any], raw: bool) -> None:
            shown[self.place] = content | {"metadata": metadata}

    def display(
        content: dict[str, Any], raw: bool, metadata: dict[str, Any] | None = None, display_id: bool = False
    ) -> Handle:
        shown.append(content)
        return Handle(len(shown) - 1)

    monkeypatch.setattr(module, "display", display)
    with Player(llm):
        assert "application/vnd.jupyter.widget-view+json" in shown[0] and len(shown) == 3
        llm.generate([[7, 8, 9]], PARAMS)
    assert "data-minillm-player" in shown[1]["text/html"]
    assert "widget-view" not in shown[1]["text/html"]
    assert base64.b64decode(shown[2]["image/png"]).startswith(b"\x89PNG")
    assert shown[2]["metadata"] == {"image/png": {"width": stand_in(llm.trace).shown_width}}


def test_a_trace_needs_no_llm():
    trace = Trace()
    trace.append(RequestAdded(0, "a", 2, [5, 6]))
    player = Player(trace, ["tape"], block_size=4)
    assert player.whole()["settings"]["block_size"] == 4 and player.whole()["words"] == ["5", "6"]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="panels has 'tapes': choose from tape, memory"):
        Player(Trace(), ["tapes"])
    with pytest.raises(ValueError, match="axis='seconds'"):
        Player(Trace(), axis="seconds")
    with tiny.llm() as llm, pytest.raises(RuntimeError, match="trace=True"):
        Player(llm)


def test_the_stand_in_is_sharp_and_small(llm):
    llm.generate([[7, 8, 9], [4, 5]], PARAMS)
    png = stand_in(llm.trace).png()
    width, _ = struct.unpack(">II", png[16:24])
    assert width >= 1400 and len(png) < 100_000


def test_the_stand_in_of_a_run_without_blocks_or_steps():
    trace = Trace()
    assert stand_in(trace).png()
    trace.append(RequestAdded(0, "a", 2, [5, 6]))
    trace.append(StepRecord(0, 0, 1, [], 1, 0, Phases(0, 0, 0, 0), preempted=["a"]))
    assert stand_in(trace).png()


def test_the_stand_in_shows_the_axis_and_the_panels_of_the_player(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(module, "stand_in", lambda *args: asked.append(args[1:]) or stand_in(*args))
    trace = Trace()
    trace.append(RequestAdded(0, "a", 2, [5, 6]))
    for step, start in enumerate((1.0, 1.5)):
        trace.append(StepRecord(step, start, start + 0.25 * (step + 1), [], 1, 0, Phases(0, 0, 0, 0)))
    for panels in (["tape", "text"], ["tape", "memory"], ["meters"]):
        Player(trace, panels, axis="time").show_stills()
    assert asked == [("time", False), ("time", True), ("time", True)]
    _tape, tokens = stand_in(trace, "time", blocks=False).axes
    assert tokens.get_xlabel() == "ms" and tokens.get_xlim() == (0, 1000)
    assert [(bar.get_x(), bar.get_width()) for bar in tokens.patches[:2]] == [(0, 250), (500, 500)]


def test_the_stand_in_shows_the_share_of_a_prompt_that_was_a_hit():
    trace = Trace()
    trace.append(RequestAdded(0, "a", 8, list(range(8))))
    part = ScheduledRequest("a", "prefill", 6, 2, num_cached_tokens=6)
    trace.append(StepRecord(0, 0, 1, [part], 1, 0, Phases(0, 0, 0, 0)))
    figure = stand_in(trace)
    bars = [bars.get_paths()[0].get_extents() for bars in figure.axes[0].collections]
    *_, hit, whole = sorted(bars, key=lambda bar: bar.height)
    assert hit.height == pytest.approx(whole.height * 6 / 8) and hit.width == whole.width
    assert "prefix hit" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_stand_in_shows_the_shares_of_drafts_that_were_rejected_and_accepted():
    trace = Trace()
    trace.append(RequestAdded(0, "a", 8, list(range(8))))
    trace += [TokenRecord(0.5, "a", 1, 30, "accepted"), TokenRecord(0.5, "a", 2, 9, "corrected")]
    part = ScheduledRequest("a", "decode", 8, 4, drafts=[30, 31, 32])
    trace.append(StepRecord(0, 0, 1, [part], 0, 1, Phases(0, 0, 0, 0)))
    figure = stand_in(trace)
    bars = {
        to_hex(bars.get_facecolor()[0]).upper(): bars.get_paths()[0].get_extents().height
        for bars in figure.axes[0].collections
        if len(bars.get_facecolor())
    }
    assert bars[REJECTED] == pytest.approx(bars[DECODE] * 2 / 4)
    assert bars[ACCEPTED] == pytest.approx(bars[DECODE] * 1 / 4)
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["decode", "rejected draft", "accepted draft"]

"""The race in a notebook: real runs, what is sent while they go on, and the picture for viewers without scripts."""

import base64
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("anywidget")

from minillm import SamplingParams
from minillm.measure.trace import TokenRecord
from minillm.player.page import module
from minillm.viz import player as live
from minillm.viz.race import Race, race_figure
from tests.engine import tiny
from tests.viz.readable import faults

PROMPTS = ["the cat sat on a mat", "the cat sat on a log"]
PARAMS = [SamplingParams(max_tokens=n, temperature=0, ignore_eos=True) for n in (6, 3)]


def raced() -> tuple[Race, list[list[list[int]]], Any]:
    """A race of two engines, the token ids that each wrote, and the second engine."""
    llm = tiny.llm(trace=True)
    race = Race(llm, PROMPTS, PARAMS)
    engines = {"one at a time": llm.variant(max_num_seqs=1), "together": llm.variant(max_num_seqs=2)}
    outputs = [race.run(name, "an idea", engine) for name, engine in engines.items()]
    return race, [[one.outputs[0].token_ids for one in run] for run in outputs], engines["together"]


def test_the_lanes_are_what_the_engines_wrote() -> None:
    race, token_ids, last = raced()
    assert token_ids[0] == token_ids[1]
    assert [lane.name for lane in race.recording.lanes] == ["one at a time", "together"]
    for lane in race.recording.lanes:
        assert lane.end is not None and len(lane.tokens) == 9 == race.recording.num_tokens
    records, tokens = last.trace.of(TokenRecord), race.recording.lanes[1].tokens
    assert all(token.time >= 0 for token in tokens)
    waits = [b.time - a.time for a, b in pairwise(records)]
    assert waits == pytest.approx([b.time - a.time for a, b in pairwise(tokens)])
    for story, ids in enumerate(token_ids[0]):
        before = last.tokenizer.encode(PROMPTS[story])
        words = [last.tokenizer.token_text(token, [*before, *ids[:i]]) for i, token in enumerate(ids)]
        assert race.recording.lanes[0].text(story, 1e9) == "".join(words)


def test_a_warm_up_is_not_in_the_race_and_the_shared_beginning_is_not_shown() -> None:
    race, _, last = raced()
    assert race.shared == "the cat sat on a " and [title for title, _ in race.recording.stories] == [
        "mat",
        "log",
    ]
    assert len(last.trace.of(TokenRecord)) == 9


def test_it_sends_what_is_new_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(live.PlayerWidget, "send", lambda self, content, buffers=None: sent.append(content))
    race, _, _ = raced()
    events = [event for message in sent for event in message["piece"]["events"]]
    assert events == race.whole()["events"]


def test_a_cell_stores_the_race_and_its_picture() -> None:
    race, _, _ = raced()
    assert race.widget._esm == module("race.js")
    (page, _), (picture, metadata) = race._still_contents()
    assert "data-minillm-player" in page["text/html"] and len(page["text/html"]) < 300_000
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG")
    assert metadata == {"image/png": {"width": race.still().shown_width}}


def test_the_picture_shows_the_middle_of_the_fastest_run() -> None:
    race, _, _ = raced()
    picture = race_figure(race.recording, 1)
    ends = [lane.end for lane in race.recording.lanes]
    words = [text.get_text() for text in picture.axes[0].texts]
    assert "one at a time" in words and "the text of story 2" in words
    for lane in race.recording.lanes:
        count = sum(token.time <= min(ends) / 2 for token in lane.tokens)
        assert f"{count} of 9 tokens" in words
    assert faults(picture) == []


def test_a_model_without_a_tokenizer_is_refused() -> None:
    llm = tiny.llm(trace=True)
    llm.tokenizer = None
    with pytest.raises(ValueError, match="has no tokenizer"):
        Race(llm, PROMPTS, PARAMS)

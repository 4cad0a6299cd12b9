"""A race says which engine wrote which token when, each on its own clock, in whatever pieces it is sent."""

import json

import pytest

from minillm.measure.trace import RequestAdded, TokenRecord, Trace
from minillm.player.race import RaceRecording

STORIES = [("One", 2), ("Two", 1)]
WORDS = {7: " a", 8: " b"}


def text(token_id: int, before: list[int]) -> str:
    return WORDS[token_id]


def run(start: float, *times: float) -> Trace:
    """A trace that writes " a" and " b" of story 1 and " b" of story 2 at these times."""
    trace = Trace()
    trace += [RequestAdded(start, "x", 2, [1, 2]), RequestAdded(start + 0.5, "y", 1, [3])]
    tokens = [("x", 0, 7), ("y", 0, 8), ("x", 1, 8)]
    trace += [TokenRecord(time, *token) for time, token in zip(times, tokens, strict=False)]
    return trace


def test_each_lane_has_a_clock_that_starts_at_its_first_request() -> None:
    race = RaceRecording(STORIES, text)
    race.enter("slow", "reads everything again", run(10, 11, 12, 14))
    race.enter("fast", "remembers", run(20, 20.5, 21, 21.5))
    race.extend()
    slow, fast = race.lanes
    assert (slow.name, slow.end, fast.end) == ("slow", 4.0, 1.5)
    assert [(token.time, token.story, token.text) for token in fast.tokens] == [
        (0.5, 0, " a"),
        (1.0, 1, " b"),
        (1.5, 0, " b"),
    ]
    assert slow.text(0, 3.9) == " a" and slow.text(0, 4) == " a b" and slow.text(1, 1) == ""
    assert race.whole() == {
        "version": 1,
        "stories": [["One", 2], ["Two", 1]],
        "start": 0,
        "events": [
            ["lane", "slow", "reads everything again"],
            ["token", 1_000_000, 0, 0],
            ["token", 2_000_000, 1, 1],
            ["token", 4_000_000, 0, 1],
            ["end", 4_000_000],
            ["lane", "fast", "remembers"],
            ["token", 500_000, 0, 0],
            ["token", 1_000_000, 1, 1],
            ["token", 1_500_000, 0, 1],
            ["end", 1_500_000],
        ],
        "first_word": 0,
        "words": [" a", " b"],
    }


@pytest.mark.parametrize("cut", range(6))
def test_all_pieces_together_are_the_whole(cut: int) -> None:
    records, growing = run(10, 11, 12, 14), Trace()
    race = RaceRecording(STORIES, text)
    race.enter("one", "", growing)
    pieces = [race.extend()]
    for part in (records[:cut], records[cut:]):
        growing.extend(part)
        pieces.append(json.loads(json.dumps(race.extend())))
    events = [event for piece in pieces for event in piece["events"]]
    words = [word for piece in pieces for word in piece["words"]]
    assert events == race.whole()["events"] and words == race.whole()["words"]
    starts = [piece["start"] for piece in pieces]
    assert starts == [sum(len(p["events"]) for p in pieces[:i]) for i in range(3)]


def test_what_a_lane_wrote_last_is_read_before_the_next_one_starts() -> None:
    race, first = RaceRecording(STORIES, text), Trace()
    race.enter("one", "", first)
    first.extend(run(10, 11, 12, 14))
    race.enter("two", "", Trace())
    assert [event[0] for event in race.whole()["events"]] == ["lane", *["token"] * 3, "end", "lane"]
    assert race.lanes[1].end is None

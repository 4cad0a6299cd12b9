"""A race as compact JSON, for `race.js`: several engines write the same stories, and are shown side by side.

The engines run one after the other. Each has a lane with its own clock, which starts at its first request, so all lanes
can be replayed as if they had started together. A race is sent in pieces, like a recording. Format, version 1:

    {"version": 1, "stories": [["Once upon a time,", 40], ...],
     "start": 0, "events": [...], "first_word": 0, "words": [" there", ...]}

A story is the beginning that is shown, and the number of tokens that each lane writes for it. A word is an index into
`words`, and times are whole microseconds. An event belongs to the last lane and begins with its kind:

    ["lane", name, idea]            an engine starts
    ["token", time, story, word]    it has written a token
    ["end", time]                   it has written all tokens
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm.measure.trace import RequestAdded, TokenRecord, Trace
from minillm.player.recording import Piece, TokenText

VERSION = 1


@dataclass
class Token:
    """A token of a story: when it was written (seconds of the lane's clock), and its text."""

    time: float
    story: int
    text: str


@dataclass
class Lane:
    """One engine's run so far. `end` is the time of its last token in seconds, or None while it writes."""

    name: str
    idea: str
    tokens: list[Token] = field(default_factory=list)
    end: float | None = None

    def text(self, story: int, time: float) -> str:
        """Return what is written of a story at a time of the lane's clock."""
        return "".join(token.text for token in self.tokens if token.story == story and token.time <= time)


@dataclass
class _Reading:
    """The reader of a lane's trace: its position, the start of the lane's clock, and the token ids of each request."""

    trace: Trace
    num_records: int = 0
    start: float = 0.0
    stories: dict[str, int] = field(default_factory=dict)
    token_ids: dict[str, list[int]] = field(default_factory=dict)


class RaceRecording:
    """The recording of a race. `stories` are (shown beginning, number of tokens), in the order of the requests."""

    def __init__(self, stories: Sequence[tuple[str, int]], token_text: TokenText) -> None:
        self.stories = list(stories)
        self.lanes: list[Lane] = []
        self._token_text = token_text
        self._events: list[list[Any]] = []
        self._words: dict[str, int] = {}
        self._given = 0, 0  # events and words of the pieces that `extend` has returned
        self._reading = _Reading(Trace())

    @property
    def num_events(self) -> int:
        return len(self._events)

    @property
    def num_tokens(self) -> int:
        """Return the number of tokens that each lane writes."""
        return sum(length for _, length in self.stories)

    def enter(self, name: str, idea: str, trace: Trace) -> None:
        """Start a lane, whose tokens are those of `trace`. The trace must be empty, and grows while the engine runs."""
        self._read()
        self._reading = _Reading(trace)
        self.lanes.append(Lane(name, idea))
        self._events.append(["lane", name, idea])

    def extend(self) -> Piece:
        """Return what is new since the last call as a piece."""
        self._read()
        piece = self.since(*self._given)
        self._given = len(self._events), len(self._words)
        return piece

    def whole(self) -> Piece:
        """Return everything that was read so far as one piece."""
        return self.since(0, 0)

    def since(self, start: int, first_word: int) -> Piece:
        """Return the piece that starts at an event and at a word."""
        return {
            "version": VERSION,
            "stories": [list(story) for story in self.stories],
            "start": start,
            "events": self._events[start:],
            "first_word": first_word,
            "words": list(self._words)[first_word:],
        }

    def _read(self) -> None:
        """Read the records that are new in the last lane's trace."""
        records = self._reading.trace[self._reading.num_records :]
        self._reading.num_records += len(records)
        for record in records:
            if isinstance(record, RequestAdded):
                self._add(record)
            elif isinstance(record, TokenRecord):
                self._write(record)

    def _add(self, record: RequestAdded) -> None:
        reading = self._reading
        if not reading.stories:
            reading.start = record.time
        reading.stories[record.request_id] = len(reading.stories)
        reading.token_ids[record.request_id] = list(record.prompt_token_ids)

    def _write(self, record: TokenRecord) -> None:
        reading, lane = self._reading, self.lanes[-1]
        before = reading.token_ids[record.request_id]
        text = self._token_text(record.token_id, before[-4:])
        before.append(record.token_id)
        token = Token(record.time - reading.start, reading.stories[record.request_id], text)
        lane.tokens.append(token)
        word = self._words.setdefault(text, len(self._words))
        self._events.append(["token", _microseconds(token.time), token.story, word])
        if len(lane.tokens) == self.num_tokens:
            lane.end = token.time
            self._events.append(["end", _microseconds(token.time)])


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)

"""The events of a trace as compact JSON, with the words of its tokens, for `player.js`.

A recording is a list of events in the order they happened. It grows with the trace, so it is sent in pieces: a piece
says at which event and at which word it starts. The whole recording is the piece that starts at 0. Format, version 1:

    {"version": 1, "start": 0, "events": [...], "first_word": 0, "words": [" Once", ...],
     "settings": {"block_size": 16, "max_num_batched_tokens": 2048, "max_num_seqs": 64, ...}}

Requests are numbered from 0 in the order of their "add" events. A word is an index into `words`. Times are whole
microseconds since the trace began. An event is a list that begins with its kind:

    ["add", time, request_id, [word, ...]]        a request entered the queue with this prompt
    ["token", request, word, origin]              origin: 0 sampled, 1 accepted, 2 bonus, 3 corrected
    ["finish", time, request, reason]
    ["snapshot", time, step, next, blocks, known, requests]    the state before step number `step` of the engine
    ["reset", time, reason, settings]             all blocks are free; all unfinished requests wait
    ["step", start, end, waiting, running, blocks, decodes, parts, tables, drafts, preempted, copied, published]

A recording begins with an empty engine, or with a snapshot. `known` lists the blocks whose prefix can be found, and the
next request gets the number `next`. Each of `requests` is [request, request_id, num_prompt_tokens, num_computed_tokens,
[block, ...], [word, ...], reason]. A snapshot after other events says nothing new: a later reader begins with it.

The tokens of a step come before it. In a step, `blocks` is [total, free, cached], or [] for a cache without blocks.
`decodes` lists the requests that compute one token after those that they had: most of all parts are of this kind. Each
of `parts` is [request, kind, num_computed_tokens, num_tokens, num_cached_tokens], where kind is 0 prefill, 1 decode,
2 padding. Each of `tables` is [request, kept, block, ...]: the first `kept` blocks of the request's table are as they
were, and these follow. Each of `drafts` is [request, word, ...].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm.measure.trace import (
    BlockCounts,
    Choice,
    Event,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    Snapshot,
    StepRecord,
    TokenRecord,
    Trace,
)

VERSION = 1
MAX_WORDS = 100_000  # of a rolling recording, at a snapshot
KINDS = ("prefill", "decode", "padding")
ORIGINS = ("sampled", "accepted", "bonus", "corrected")
Piece = dict[str, Any]
TokenText = Callable[[int, Sequence[int]], str]
"""The text of a token after some tokens before it: `Tokenizer.token_text`."""


@dataclass
class _Request:
    """A request at the last event: its number, tokens and block table, and the number of computed tokens."""

    number: int
    token_ids: list[int]
    table: list[int] = field(default_factory=list)
    num_computed: int = 0


class Recording:
    """The recording of `trace`, which may go on growing. `settings` are engine arguments; `block_size` is needed.

    Without `token_text` a token's word is its id.

    A `rolling` recording is for an engine that runs for weeks. It takes the records out of the trace, and keeps the
    events since the last snapshot but one. `size` says how much was recorded since the last snapshot, in numbers.
    """

    def __init__(
        self,
        trace: Trace,
        settings: Mapping[str, int | str],
        token_text: TokenText | None = None,
        *,
        rolling: bool = False,
    ) -> None:
        if "block_size" not in settings:
            raise ValueError(
                f"settings has no 'block_size', only {sorted(settings)}: add the tokens per block"
            )
        self.trace, self.settings, self.rolling = trace, dict(settings), rolling
        self.first = 0  # the number of the first event that is kept
        self.size = 0
        self._token_text = token_text
        self._events: list[list[Any]] = []
        self._words: dict[str, int] = {}
        self._spelled: list[str] = []  # the keys of _words
        self._requests: dict[str, _Request] = {}
        self._num_requests = self._num_records = 0
        self._last_snapshot = 0  # the number of its event

    @property
    def num_events(self) -> int:
        return self.first + len(self._events)

    @property
    def num_words(self) -> int:
        return len(self._spelled)

    def extend(self) -> Piece:
        """Read the records that are new in the trace, and return them as a piece."""
        start, first_word = self.num_events, self.num_words
        records = self.trace[self._num_records :]
        if self.rolling:
            del self.trace[: len(records)]
        else:
            self._num_records += len(records)
        for record in records:
            if not isinstance(record, Choice):
                self._append(record)
        return self.since(max(start, self.first), first_word)

    def whole(self) -> Piece:
        """Return everything that was read and kept so far as one piece."""
        return self.since(self.first, 0)

    def since(self, start: int, first_word: int) -> Piece:
        """Return the piece that starts at an event and at a word."""
        return {
            "version": VERSION,
            "settings": self.settings,
            "start": start,
            "events": self._events[start - self.first :],
            "first_word": first_word,
            "words": self._spelled[first_word:],
        }

    def _append(self, record: Event) -> None:
        if isinstance(record, Snapshot):
            if self.rolling:
                self._forget()
            elif self._events:
                return
        event = self._event(record)
        self.size += _size(event)
        self._events.append(event)

    def _forget(self) -> None:
        """Drop what came before the last snapshot. The snapshot that comes now is the last one from here on."""
        now = self.num_events
        if self.num_words > MAX_WORDS:
            self._words, self._spelled, self._last_snapshot = {}, [], now
        del self._events[: self._last_snapshot - self.first]
        self.first, self._last_snapshot, self.size = self._last_snapshot, now, 0

    def _event(self, record: Event) -> list[Any]:
        if isinstance(record, StepRecord):
            return self._step(record)
        if isinstance(record, RequestAdded):
            ids = list(record.prompt_token_ids)
            self._requests[record.request_id] = _Request(self._next_number(), ids)
            words = self._sentence(ids)
            # A trace without the prompt's tokens still says how many there are.
            words += [self._add_word("·") for _ in range(record.num_prompt_tokens - len(ids))]
            return ["add", _microseconds(record.time), record.request_id, words]
        if isinstance(record, TokenRecord):
            request = self._requests[record.request_id]
            word = self._word(record.token_id, request.token_ids)
            request.token_ids.append(record.token_id)
            return ["token", request.number, word, ORIGINS.index(record.origin)]
        if isinstance(record, RequestFinished):
            number = self._requests[record.request_id].number
            return ["finish", _microseconds(record.time), number, record.reason]
        if isinstance(record, Snapshot):
            return self._snapshot(record)
        for request in self._requests.values():
            request.table, request.num_computed = [], 0
        return ["reset", _microseconds(record.time), record.reason, record.settings]

    def _snapshot(self, snapshot: Snapshot) -> list[Any]:
        """Forget requests that have finished. The others are as the last event left them, for every reader."""
        before, self._requests = self._requests, {}
        requests = []
        for state in snapshot.requests:
            name = state.request_id
            request = before.get(name) or _Request(
                self._next_number(), list(state.token_ids), list(state.blocks), state.num_computed_tokens
            )
            self._requests[name] = request
            place = [request.number, name, state.num_prompt_tokens, request.num_computed, request.table[:]]
            requests.append([*place, self._sentence(state.token_ids), state.finish_reason])
        when = [_microseconds(snapshot.time), snapshot.step, self._num_requests]
        return ["snapshot", *when, _counts(snapshot.blocks), snapshot.known, requests]

    def _next_number(self) -> int:
        self._num_requests += 1
        return self._num_requests - 1

    def _step(self, step: StepRecord) -> list[Any]:
        decodes, parts, tables, drafts = [], [], [], []
        for name in step.preempted:
            self._requests[name].table, self._requests[name].num_computed = [], 0
        for part in step.scheduled:
            request = self._requests[part.request_id]
            if _is_plain_decode(part, request):
                decodes.append(request.number)
            else:
                parts.append(
                    [
                        request.number,
                        KINDS.index(part.kind),
                        part.num_computed_tokens,
                        part.num_tokens,
                        part.num_cached_tokens,
                    ]
                )
            request.num_computed = part.num_computed_tokens + part.num_tokens
            if part.drafts:
                drafts.append([request.number, *self._draft_words(part.drafts, request.token_ids)])
        now = [(part.request_id, part.blocks) for part in step.scheduled]
        for name, table in [*now, *step.idle_tables.items()]:
            request = self._requests[name]
            if table != request.table:
                kept = _num_equal(table, request.table)
                tables.append([request.number, kept, *table[kept:]])
                request.table = list(table)
        blocks = _counts(step.blocks)
        preempted = [self._requests[name].number for name in step.preempted]
        times = [_microseconds(step.start), _microseconds(step.end)]
        counts = [step.num_waiting, step.num_running, blocks]
        changes = [preempted, [list(pair) for pair in step.copied], step.published]
        return ["step", *times, *counts, decodes, parts, tables, drafts, *changes]

    def _draft_words(self, drafts: Sequence[int], before: Sequence[int]) -> list[int]:
        return [self._word(token_id, [*before[-4:], *drafts[:i]]) for i, token_id in enumerate(drafts)]

    def _sentence(self, token_ids: Sequence[int]) -> list[int]:
        return [self._word(token_id, token_ids[max(0, i - 4) : i]) for i, token_id in enumerate(token_ids)]

    def _word(self, token_id: int, before: Sequence[int]) -> int:
        # No character needs more than four tokens.
        text = str(token_id) if self._token_text is None else self._token_text(token_id, before[-4:])
        return self._add_word(text)

    def _add_word(self, text: str) -> int:
        index = self._words.setdefault(text, len(self._words))
        if index == len(self._spelled):
            self._spelled.append(text)
        return index


def _is_plain_decode(part: ScheduledRequest, request: _Request) -> bool:
    """Return whether the part is one token directly after the computed tokens of the request."""
    return (
        part.kind == "decode"
        and part.num_tokens == 1
        and part.num_computed_tokens == request.num_computed
        and part.num_cached_tokens == 0
    )


def _counts(blocks: BlockCounts | None) -> list[int]:
    return [] if blocks is None else [blocks.total, blocks.free, blocks.cached]


def _size(event: list[Any]) -> int:
    """Return how many numbers and names an event has, in lists of lists too."""
    return sum(_size(part) if isinstance(part, list) else 1 for part in event)


def _num_equal(now: Sequence[int], before: Sequence[int]) -> int:
    """Return how many blocks at the start of a table are as they were."""
    for index, (block, old) in enumerate(zip(now, before, strict=False)):
        if block != old:
            return index
    return min(len(now), len(before))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)

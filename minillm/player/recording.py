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
    ["reset", time, reason, settings]             all blocks are free; all unfinished requests wait
    ["step", start, end, waiting, running, blocks, decodes, parts, tables, drafts, preempted, copied, published]

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
    Choice,
    Event,
    RequestAdded,
    RequestFinished,
    ScheduledRequest,
    StepRecord,
    TokenRecord,
    Trace,
)

VERSION = 1
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
    """

    def __init__(
        self, trace: Trace, settings: Mapping[str, int | str], token_text: TokenText | None = None
    ) -> None:
        if "block_size" not in settings:
            raise ValueError(
                f"settings has no 'block_size', only {sorted(settings)}: add the tokens per block"
            )
        self.trace, self.settings = trace, dict(settings)
        self._token_text = token_text
        self._events: list[list[Any]] = []
        self._words: dict[str, int] = {}
        self._requests: dict[str, _Request] = {}
        self._num_records = 0

    @property
    def num_events(self) -> int:
        return len(self._events)

    def extend(self) -> Piece:
        """Read the records that are new in the trace, and return them as a piece."""
        start, first_word = len(self._events), len(self._words)
        records = self.trace[self._num_records :]
        self._num_records += len(records)
        self._events += [self._event(record) for record in records if not isinstance(record, Choice)]
        return self.since(start, first_word)

    def whole(self) -> Piece:
        """Return everything that was read so far as one piece."""
        return self.since(0, 0)

    def since(self, start: int, first_word: int) -> Piece:
        """Return the piece that starts at an event and at a word."""
        return {
            "version": VERSION,
            "settings": self.settings,
            "start": start,
            "events": self._events[start:],
            "first_word": first_word,
            "words": list(self._words)[first_word:],
        }

    def _event(self, record: Event) -> list[Any]:
        if isinstance(record, StepRecord):
            return self._step(record)
        if isinstance(record, RequestAdded):
            ids = list(record.prompt_token_ids)
            self._requests[record.request_id] = _Request(len(self._requests), ids)
            words = [self._word(token_id, ids[:i]) for i, token_id in enumerate(ids)]
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
        for request in self._requests.values():
            request.table, request.num_computed = [], 0
        return ["reset", _microseconds(record.time), record.reason, record.settings]

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
        blocks = [] if step.blocks is None else [step.blocks.total, step.blocks.free, step.blocks.cached]
        preempted = [self._requests[name].number for name in step.preempted]
        times = [_microseconds(step.start), _microseconds(step.end)]
        counts = [step.num_waiting, step.num_running, blocks]
        changes = [preempted, [list(pair) for pair in step.copied], step.published]
        return ["step", *times, *counts, decodes, parts, tables, drafts, *changes]

    def _draft_words(self, drafts: Sequence[int], before: Sequence[int]) -> list[int]:
        return [self._word(token_id, [*before[-4:], *drafts[:i]]) for i, token_id in enumerate(drafts)]

    def _word(self, token_id: int, before: Sequence[int]) -> int:
        # No character needs more than four tokens.
        text = str(token_id) if self._token_text is None else self._token_text(token_id, before[-4:])
        return self._add_word(text)

    def _add_word(self, text: str) -> int:
        return self._words.setdefault(text, len(self._words))


def _is_plain_decode(part: ScheduledRequest, request: _Request) -> bool:
    """Return whether the part is one token directly after the computed tokens of the request."""
    return (
        part.kind == "decode"
        and part.num_tokens == 1
        and part.num_computed_tokens == request.num_computed
        and part.num_cached_tokens == 0
    )


def _num_equal(now: Sequence[int], before: Sequence[int]) -> int:
    """Return how many blocks at the start of a table are as they were."""
    for index, (block, old) in enumerate(zip(now, before, strict=False)):
        if block != old:
            return index
    return min(len(now), len(before))


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)

"""The records of a run: its requests, the parts of requests that each step computed, and the time of each token.

The engine appends plain records if it is created with `LLM(..., trace=True)`. Every live picture is drawn from these
records, so it shows only events that happened. All times are seconds since the trace began. This file does not use
torch, so a scheduler can be traced without a model.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

Kind = Literal["prefill", "decode", "padding"]
Origin = Literal["sampled", "accepted", "bonus", "corrected"]


@dataclass(slots=True)
class RequestAdded:
    """A request entered the waiting queue. `prompt_token_ids` has its `num_prompt_tokens` tokens."""

    time: float
    request_id: str
    num_prompt_tokens: int
    prompt_token_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class ScheduledRequest:
    """One request's part in a step: `num_tokens` new tokens after `num_computed_tokens` in the cache.

    `num_cached_tokens` is the number of computed tokens that a prefix cache hit contributed in this step; the request's
    other steps have 0. The kind is also "prefill" for tokens that are computed again after a preemption. It is
    "padding" for tokens that a static batch computes for a finished request. `blocks` is the request's block table,
    with the blocks for the step's tokens. The last of these tokens are the `drafts` to verify.
    """

    request_id: str
    kind: Kind
    num_computed_tokens: int
    num_tokens: int
    num_cached_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)

    @property
    def num_drafts(self) -> int:
        return len(self.drafts)


@dataclass(slots=True)
class BlockCounts:
    """The cache's blocks after scheduling. `cached` of the `free` ones still hold a known prefix."""

    total: int
    free: int
    cached: int = 0


@dataclass(slots=True)
class Phases:
    """Seconds of a step's parts. The rest of `end - start` is the engine's own overhead."""

    schedule: float
    forward: float
    sample: float
    commit: float
    draft: float = 0.0


@dataclass(slots=True)
class StepRecord:
    """One step of the engine. `blocks` is None if the cache has no blocks.

    `num_waiting` and `num_running` count requests after scheduling. `preempted` are the requests that lost their blocks
    to make room for this step. `copied` are the pairs (from, to) of blocks that were copied because a fork writes to
    them. `published` are the blocks whose prefix other requests can find from now on. `idle_tables` has the block
    tables of running requests that compute nothing in this step: a fork or drafts may have changed them.
    """

    step: int
    start: float
    end: float
    scheduled: list[ScheduledRequest]
    num_waiting: int
    num_running: int
    phases: Phases
    blocks: BlockCounts | None = None
    preempted: list[str] = field(default_factory=list)
    copied: list[tuple[int, int]] = field(default_factory=list)
    published: list[int] = field(default_factory=list)
    idle_tables: dict[str, list[int]] = field(default_factory=dict)

    def num_tokens(self, kind: Kind | None = None) -> int:
        """Return the number of new tokens computed in this step, of one kind or of all."""
        return sum(part.num_tokens for part in self.scheduled if kind in (None, part.kind))


@dataclass(slots=True)
class TokenRecord:
    """A request got a token. `index` counts the request's output tokens from 0. All tokens of a step have one time.

    `origin` is "accepted" for a draft that the model agrees with, "corrected" for the token in place of a rejected
    draft, and "bonus" for a token sampled after all drafts were accepted. In a step without drafts it is "sampled".
    """

    time: float
    request_id: str
    index: int
    token_id: int
    origin: Origin = "sampled"


@dataclass(slots=True)
class RequestFinished:
    """A request left the engine; `reason` is its finish_reason ("stop", "length", "abort", "error")."""

    time: float
    request_id: str
    reason: str


@dataclass(slots=True)
class EngineReset:
    """Every block became free, and every unfinished request waits again with the tokens that it has.

    `reason` is the error that interrupted a step, or "rebuilt" if another engine took over the requests. `settings` are
    the engine arguments of that engine; they are empty after an error.
    """

    time: float
    reason: str
    settings: dict[str, int | str] = field(default_factory=dict)


@dataclass(slots=True)
class LinearChoice:
    """The engine multiplies weights [size_out, size_in] of a scheme, such as "int8", by `op`, the fastest one here.

    The choice is for steps with up to `rows` rows, and more than the previous choice. That of 256 also serves more.
    """

    time: float
    scheme: str
    size_out: int
    size_in: int
    rows: int
    op: str


@dataclass(slots=True)
class DraftChoice:
    """From this step on, each of `num_requests` requests gets up to `num_drafts` drafts: adaptive speculation.

    `acceptance` is the recent share of accepted drafts among those judged. `seconds_without` and `seconds_with` are the
    expected seconds per token of one request, without drafts and with them. They are None before both are measured.
    """

    time: float
    num_requests: int
    num_drafts: int
    acceptance: float
    seconds_without: float | None
    seconds_with: float | None


@dataclass(slots=True)
class RequestState:
    """A request when a snapshot was taken: its prompt and output tokens, and its block table.

    `finish_reason` is set only for a finished request that a static batch still computes as padding.
    """

    request_id: str
    num_prompt_tokens: int
    token_ids: list[int]
    num_computed_tokens: int
    blocks: list[int]
    finish_reason: str | None = None


@dataclass(slots=True)
class Snapshot:
    """The engine's state between two steps: the records that follow need none of those before.

    `step` is the number of the next step. `known` are the blocks whose prefix requests can find.
    """

    time: float
    step: int
    requests: list[RequestState]
    blocks: BlockCounts | None = None
    known: list[int] = field(default_factory=list)


Event = RequestAdded | StepRecord | TokenRecord | RequestFinished | EngineReset | Snapshot
Choice = LinearChoice | DraftChoice
Record = Event | Choice
R = TypeVar(
    "R",
    RequestAdded,
    StepRecord,
    TokenRecord,
    RequestFinished,
    EngineReset,
    Snapshot,
    LinearChoice,
    DraftChoice,
)


class Trace(list[Record]):
    """A list of records in the order they happened, with the clock that times them."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()

    def now(self) -> float:
        """Return the seconds since the trace began: the time to write into a record."""
        return time.perf_counter() - self._began

    def of(self, kind: type[R]) -> list[R]:
        """Return the records of one kind: `trace.of(StepRecord)`."""
        return [record for record in self if isinstance(record, kind)]

    def for_request(self, request_id: str) -> list[Record]:
        """Return the records of one request: its own, and the steps that computed or preempted it."""
        return [record for record in self if request_id in _requests_of(record)]

    def save(self, path: str | Path) -> None:
        """Write one JSON object per line; its "kind" is the record's class."""
        with open(path, "w", encoding="utf-8") as file:
            for record in self:
                file.write(json.dumps({"kind": type(record).__name__, **asdict(record)}) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read a file that `save` wrote. Raises ValueError with the file and the line if a line is not a record."""
        trace = cls()
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    trace.append(_record(json.loads(line)))
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number}: not a trace record: {error!r}") from error
        return trace


def ttft(trace: Trace) -> dict[str, float]:
    """Return the time to first token, in seconds since the request was added, for each request with a token.

    Raises KeyError for a token whose request was never added, because such a trace is incomplete.
    """
    added = {record.request_id: record.time for record in trace.of(RequestAdded)}
    return {t.request_id: t.time - added[t.request_id] for t in trace.of(TokenRecord) if t.index == 0}


def inter_token_latencies(trace: Trace) -> dict[str, list[float]]:
    """Return the seconds between one token and the next, for each request with a token: n - 1 values for n tokens.

    Tokens that one speculative step accepts together have the same time, so their latency is 0.
    """
    times: dict[str, list[float]] = {}
    for token in trace.of(TokenRecord):
        times.setdefault(token.request_id, []).append(token.time)
    return {name: [b - a for a, b in pairwise(ts)] for name, ts in times.items()}


def _requests_of(record: Record) -> list[str]:
    if isinstance(record, StepRecord):
        return [part.request_id for part in record.scheduled] + record.preempted
    if isinstance(record, EngineReset | Choice):
        return []
    if isinstance(record, Snapshot):
        return [request.request_id for request in record.requests]
    return [record.request_id]


def _step(scheduled: list[Any], phases: Any, blocks: Any, **fields: Any) -> StepRecord:
    """Return a StepRecord from JSON, with its nested records."""
    fields["copied"] = [(source, target) for source, target in fields.get("copied", ())]
    return StepRecord(
        scheduled=[ScheduledRequest(**part) for part in scheduled],
        phases=Phases(**phases),
        blocks=None if blocks is None else BlockCounts(**blocks),
        **fields,
    )


def _snapshot(requests: list[Any], blocks: Any, **fields: Any) -> Snapshot:
    """Return a Snapshot from JSON, with its nested records."""
    return Snapshot(
        requests=[RequestState(**request) for request in requests],
        blocks=None if blocks is None else BlockCounts(**blocks),
        **fields,
    )


_KINDS: dict[str, Callable[..., Record]] = {
    "RequestAdded": RequestAdded,
    "StepRecord": _step,
    "TokenRecord": TokenRecord,
    "RequestFinished": RequestFinished,
    "EngineReset": EngineReset,
    "Snapshot": _snapshot,
    "LinearChoice": LinearChoice,
    "DraftChoice": DraftChoice,
}


def _record(fields: dict[str, Any]) -> Record:
    return _KINDS[fields.pop("kind")](**fields)

"""The records of a run: what was asked, what each step computed and for whom, which token came when.

The engine appends plain records when asked to (`LLM(..., trace=True)`), and every live picture is drawn
from them, so a picture cannot show what did not happen. All times are seconds since the trace began. No torch
here: a scheduler can be traced without a model.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

Kind = Literal["prefill", "decode", "padding"]
Origin = Literal["sampled", "accepted", "bonus"]


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

    `num_cached_tokens` are those of the computed ones that a prefix hit contributed just now; the request's other
    steps have 0. What is computed again after a preemption is a prefill too; what a static batch computes for a
    request that has finished is padding. `blocks` is the request's block table, in which the step's tokens go. The
    last of the step's tokens are its `drafts`, to be verified.
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
    """Seconds of a step's parts; what is left of `end - start` is the engine's own overhead."""

    schedule: float
    forward: float
    sample: float
    commit: float


@dataclass(slots=True)
class StepRecord:
    """One step of the engine. `blocks` is None where the cache has no blocks.

    `num_waiting` and `num_running` count requests after scheduling; `preempted` are the requests that lost
    their memory to let this step happen. `copied` are the blocks (from, to) that were copied for a fork that writes,
    `published` those whose prefix can be found from now on.
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

    def num_tokens(self, kind: Kind | None = None) -> int:
        """New tokens computed in this step, of one kind or of all."""
        return sum(part.num_tokens for part in self.scheduled if kind in (None, part.kind))


@dataclass(slots=True)
class TokenRecord:
    """A token came out; `index` counts the request's output tokens from 0. The tokens of one step have one time.

    `origin`: "sampled" from the model, "accepted" if it was drafted and the model agrees, "bonus" if it was sampled
    after the last of the drafts, all accepted.
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
    """Every block became free and every unfinished request waits again, with the tokens that it has.

    `reason` is the error that broke a step off, or "rebuilt" if another engine took the requests over. `settings` are
    the engine arguments of that engine; they are empty if nothing was rebuilt.
    """

    time: float
    reason: str
    settings: dict[str, int | str] = field(default_factory=dict)


Record = RequestAdded | StepRecord | TokenRecord | RequestFinished | EngineReset
R = TypeVar("R", RequestAdded, StepRecord, TokenRecord, RequestFinished, EngineReset)


class Trace(list[Record]):
    """A list of records in the order they happened, with the clock that times them."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.perf_counter()

    def now(self) -> float:
        """Seconds since the trace began: the time to write into a record."""
        return time.perf_counter() - self._began

    def of(self, kind: type[R]) -> list[R]:
        """The records of one kind: `trace.of(StepRecord)`."""
        return [record for record in self if isinstance(record, kind)]

    def for_request(self, request_id: str) -> list[Record]:
        """The records that concern one request: its own, and the steps that computed or preempted it."""
        return [record for record in self if request_id in _requests_of(record)]

    def save(self, path: str | Path) -> None:
        """Write one JSON object a line, its "kind" the record's class."""
        with open(path, "w", encoding="utf-8") as file:
            for record in self:
                file.write(json.dumps({"kind": type(record).__name__, **asdict(record)}) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what `save` wrote. Raises ValueError naming the file and line that is not such a record."""
        trace = cls()
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    trace.append(_record(json.loads(line)))
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number}: not a trace record: {error!r}") from error
        return trace


def ttft(trace: Trace) -> dict[str, float]:
    """Time to first token of each request that has one: seconds from being added to the first token.

    Raises KeyError for a token whose request was never added: such a trace is not whole.
    """
    added = {record.request_id: record.time for record in trace.of(RequestAdded)}
    return {t.request_id: t.time - added[t.request_id] for t in trace.of(TokenRecord) if t.index == 0}


def inter_token_latencies(trace: Trace) -> dict[str, list[float]]:
    """Seconds between one token and the next, for each request with a token; n tokens have n - 1 of them.

    Tokens that one speculative step accepts together came at the same time: their latency is 0.
    """
    times: dict[str, list[float]] = {}
    for token in trace.of(TokenRecord):
        times.setdefault(token.request_id, []).append(token.time)
    return {name: [b - a for a, b in pairwise(ts)] for name, ts in times.items()}


def _requests_of(record: Record) -> list[str]:
    if isinstance(record, StepRecord):
        return [part.request_id for part in record.scheduled] + record.preempted
    if isinstance(record, EngineReset):
        return []
    return [record.request_id]


def _step(scheduled: list[Any], phases: Any, blocks: Any, **fields: Any) -> StepRecord:
    """A StepRecord from JSON, its nested records made records again."""
    fields["copied"] = [(source, target) for source, target in fields.get("copied", ())]
    return StepRecord(
        scheduled=[ScheduledRequest(**part) for part in scheduled],
        phases=Phases(**phases),
        blocks=None if blocks is None else BlockCounts(**blocks),
        **fields,
    )


_KINDS: dict[str, Callable[..., Record]] = {
    "RequestAdded": RequestAdded,
    "StepRecord": _step,
    "TokenRecord": TokenRecord,
    "RequestFinished": RequestFinished,
    "EngineReset": EngineReset,
}


def _record(fields: dict[str, Any]) -> Record:
    return _KINDS[fields.pop("kind")](**fields)

"""A request from arrival to its last token, and what its user sees of it.

`Request` is what the scheduler works on: one sample. `RequestOutput` is what the user asked for and gets back: one
prompt with `n` samples. An output is live: the engine appends to it, so the user sees it grow and nothing is copied
for each token. `Delta` is a copy of what is new, for a stream.

The tokens of the output are the one thing that cannot be computed again. Everything else, its text, its finish, its
place in the queues and in the cache, follows from them: `Request.restore` does that after an error.
"""

import enum
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from minillm.model.tokenizer import Detokenizer, StopStrings
from minillm.sampling import Logprob, SamplingParams, SamplingRow

FinishReason = Literal["stop", "length", "abort", "error"]


class Status(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True)
class RequestMetrics:
    """When things happened, under vLLM's names; 0.0 until they do. `arrival_time` is the time of day (`time.time`), the
    others are seconds of `time.monotonic`."""

    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    num_generation_tokens: int = 0


@dataclass(slots=True)
class CompletionOutput:
    """One sample. `token_ids` includes the end token; `text` excludes it and, unless asked for, the stop string.

    `finish_reason` is None while it runs, then "stop" (`stop_reason` names the stop string or stop token; None is the
    model's own end token), "length", "abort", or "error", whose exception is `error`.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    error: BaseException | None = None

    def finished(self) -> bool:
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestOutput:
    """A prompt and its samples. `prompt_logprobs[i]` belongs to prompt token i; the first has none.

    `num_cached_tokens` are the prompt tokens that the prefix cache contributed, None before the request first runs.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    metrics: RequestMetrics
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int | None = None

    @property
    def finished(self) -> bool:
        return all(output.finish_reason is not None for output in self.outputs)

    @property
    def error(self) -> BaseException | None:
        """The exception of the first sample that ended with "error"."""
        return next((output.error for output in self.outputs if output.error is not None), None)


@dataclass(frozen=True, slots=True)
class Delta:
    """The new part of one sample. `finish_reason` is set on its last delta; `logprobs` are those of `token_ids`."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None
    logprobs: list[dict[int, Logprob]] | None = None


class DeltaReader:
    """Reads a live output piece by piece. `state` is how far: characters, tokens and whether the end, per sample."""

    def __init__(self, output: RequestOutput) -> None:
        self.output, self.state = output, [(0, 0, False)] * len(output.outputs)

    def peek(self) -> tuple[list[Delta], list[tuple[int, int, bool]]]:
        """A delta for each sample that has changed since `state`, and the state to set once they are delivered."""
        state = [(len(o.text), len(o.token_ids), o.finished()) for o in self.output.outputs]
        deltas = [
            Delta(
                o.index,
                o.text[chars:],
                o.token_ids[tokens:],
                o.finish_reason,
                o.stop_reason,
                None if o.logprobs is None else o.logprobs[tokens:],
            )
            for o, (chars, tokens, ended), now in zip(self.output.outputs, self.state, state, strict=True)
            if now != (chars, tokens, ended)
        ]
        return deltas, state


@dataclass(slots=True, eq=False)
class Request:
    """One sample on its way. `token_ids` is the prompt and every sampled token; the first `num_computed_tokens` of them
    have their keys and values in the cache, in the blocks of `block_table`.

    `drafts` are proposed tokens that the next step verifies; they are no part of `token_ids`. `arrival` orders
    requests, and samples of one. `forks` are the other samples of the prompt, which begin when it is computed.
    `num_cached_tokens` is what the prefix cache contributed at the last admission; `block_hashes` name the first full
    blocks, and others can find `num_published` of them (cache/prefix.py).
    """

    request_id: str
    params: SamplingParams
    token_ids: list[int]
    num_prompt_tokens: int
    max_tokens: int
    row: SamplingRow
    output: CompletionOutput
    result: RequestOutput
    stop_strings: StopStrings
    detokenizer: Detokenizer | None = None
    arrival: tuple[int, int] = (0, 0)
    priority: int = 0
    forks: list["Request"] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    status: Status = Status.WAITING
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_published: int = 0
    block_table: "array[int]" = field(default_factory=lambda: array("i"))
    block_hashes: list[bytes] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_wanted(self) -> int:
        """Tokens whose keys and values the next step should reach: all that are known, and the drafts after them."""
        return len(self.token_ids) + len(self.drafts)

    @property
    def max_cached_tokens(self) -> int:
        """The most tokens that will ever have keys and values: the last one sampled needs none."""
        return self.num_prompt_tokens + self.max_tokens - 1

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether this sample reports on the prompt: only the first of `n` does."""
        return self.params.prompt_logprobs is not None and self.output.index == 0

    @property
    def may_hit(self) -> bool:
        """Whether the prefix cache can replace computing. False if every position's logits are wanted."""
        return not self.wants_prompt_logprobs

    def rows(self) -> list[SamplingRow]:
        """How to sample after the last known token, and after each draft."""
        drafts, row = self.drafts, self.row
        return [row, *(row.after(drafts[:i]) for i in range(1, len(drafts) + 1))] if drafts else [row]

    def append(
        self, token_id: int, logprobs: dict[int, Logprob] | None, eos_token_ids: Sequence[int]
    ) -> None:
        """Take one sampled token, show what text of it is final, and finish if a stop condition holds.

        `eos_token_ids` are the model's end tokens, its own one first.
        """
        output = self.output
        if logprobs is not None and output.logprobs is not None:
            output.logprobs.append(logprobs)
        output.token_ids.append(token_id)  # from here on the token counts: see restore
        self.token_ids.append(token_id)
        if logprobs is not None and output.cumulative_logprob is not None:
            output.cumulative_logprob += logprobs[token_id].logprob
        self._accept(token_id, len(output.token_ids), eos_token_ids)

    def restore(self) -> None:
        """Make an unfinished request wait again: everything but its output tokens is computed from them again."""
        output, self.status = self.output, Status.WAITING
        self.token_ids[self.num_prompt_tokens :] = output.token_ids
        self.num_computed_tokens = self.num_cached_tokens = self.num_published = 0
        self.drafts, self.forks, self.block_table, self.block_hashes = [], [], array("i"), []
        if output.logprobs is not None:
            del output.logprobs[len(output.token_ids) :]
            found = zip(output.token_ids, output.logprobs, strict=True)
            output.cumulative_logprob = sum((report[i].logprob for i, report in found), 0.0)
        self.stop_strings, output.text = self.stop_strings.fresh(), ""
        if self.detokenizer is not None:
            self.detokenizer = self.detokenizer.fresh()
        for count, token_id in enumerate(output.token_ids, start=1):
            self._accept(token_id, count, self.row.eos_token_ids)

    def finish(self, reason: FinishReason, stop_reason: int | str | None = None) -> None:
        """End the sample and show the text that was held back. A stop string in it ended the sample first."""
        if self.detokenizer is not None:
            hit = self._show(self.detokenizer.finish(), len(self.output.token_ids))
            self.output.text += self.stop_strings.finish()
            if hit and reason != "abort":
                reason, stop_reason = "stop", hit
        self._end(reason, stop_reason)

    def abort(self) -> None:
        """End the sample where it is."""
        try:
            self.finish("abort")
        except Exception as error:  # its tokenizer's
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the sample with "error". Its tokens and text stay; text that was held back is lost: it may be what
        failed."""
        self.output.error = error
        self._end("error", None)

    def _accept(self, token_id: int, count: int, eos_token_ids: Sequence[int]) -> None:
        """Show the text of output token number `count`, and finish if a stop condition holds."""
        params = self.params
        may_stop = count >= params.min_tokens
        if may_stop and token_id in eos_token_ids and not params.ignore_eos:
            self.finish("stop", None if token_id == eos_token_ids[0] else token_id)
        elif may_stop and token_id in (params.stop_token_ids or ()):
            self.finish("stop", token_id)
        elif self.detokenizer is not None and (hit := self._show(self.detokenizer.push(token_id), count)):
            self._end("stop", hit)
        elif count >= self.max_tokens:
            self.finish("length")

    def _show(self, text: str, count: int) -> str | None:
        """Add to the output what of `text` is final; return the stop string that ended it. One that is complete at
        output token `min_tokens` or before does not count."""
        text, hit = self.stop_strings.push(text, count > self.params.min_tokens)
        self.output.text += text
        return hit

    def _end(self, reason: FinishReason, stop_reason: int | str | None) -> None:
        # The reason comes last: another thread that sees it has seen the whole text.
        self.status, self.output.stop_reason, self.output.finish_reason = Status.FINISHED, stop_reason, reason

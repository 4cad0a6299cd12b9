"""A request from its arrival to its last token, and the output that its user sees.

A `Request` is one sample, the unit that the scheduler works on. A `RequestOutput` is one prompt with its `n` samples,
the unit that the user gets. An output is live: the engine appends to it, so the user sees it grow and no token costs a
copy. A `Delta` is a copy of the new part, for streams.

Only the tokens of the output cannot be computed again. Everything else follows from them: its text, its finish reason,
its place in the queues and in the cache. `Request.restore` uses this after an error.
"""

import enum
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from minillm.model.tokenizer import Detokenizer, StopStrings
from minillm.sampling import Logprob, SamplingParams, SamplingRow

FinishReason = Literal["stop", "length", "abort", "error"]


class Status(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True)
class RequestMetrics:
    """The times of a request's events, under vLLM's names; 0.0 for an event that has not happened yet.

    `num_draft_tokens` counts the drafts that the model has verified, and `num_accepted_tokens` those that it accepted.
    `arrival_time` is the time of day (`time.time`). The others are seconds of `time.monotonic`.
    """

    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    num_generation_tokens: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0


@dataclass(slots=True)
class CompletionOutput:
    """One sample. `token_ids` includes the end token; `text` excludes it and, unless asked for, the stop string.

    `finish_reason` is None while it runs, then "stop", "length", "abort" or "error". After "stop", `stop_reason` is the
    stop string or stop token, or None for the model's own end token. After "error", `error` is the exception.
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

    `num_cached_tokens` is the number of prompt tokens that the prefix cache contributed, None before the first step.
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
        """Return the exception of the first sample that ended with "error", or None."""
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
    """Reads a live output in parts. `state` is how far it was read: characters, tokens and the end, per sample."""

    def __init__(self, output: RequestOutput) -> None:
        self.output, self.state = output, [(0, 0, False)] * len(output.outputs)

    def peek(self) -> tuple[list[Delta], list[tuple[int, int, bool]]]:
        """Return a delta for each sample that changed since `state`, and the state to set once they are delivered."""
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
    """One sample of a prompt.

    `token_ids` is the prompt and every sampled token. The first `num_computed_tokens` of them have their keys and
    values in the cache, in the blocks of `block_table`.

    `drafts` are proposed tokens that the next step verifies; they are not part of `token_ids`. `draft_probs` has the
    distributions that they were drawn from (sampling/verify.py), or is None if each draft is certain. A draft model has
    the keys and values of the first `num_drafted_tokens` of `token_ids` and `drafts`. `arrival` orders requests, and
    the samples of one prompt. `forks` are the other samples of the prompt; they begin when the prompt is computed.
    `num_cached_tokens` is the number of tokens that the prefix cache contributed at the last admission. `block_hashes`
    names the first full blocks, and other requests can find `num_published` of them (cache/prefix.py).
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
    draft_probs: Tensor | None = None
    status: Status = Status.WAITING
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_published: int = 0
    num_drafted_tokens: int = 0
    block_table: "array[int]" = field(default_factory=lambda: array("i"))
    block_hashes: list[bytes] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_wanted(self) -> int:
        """Return the number of tokens to compute keys and values for: all known tokens and the drafts after them."""
        return len(self.token_ids) + len(self.drafts)

    @property
    def max_cached_tokens(self) -> int:
        """Return the largest number of tokens that will have keys and values; the last sampled token needs none."""
        return self.num_prompt_tokens + self.max_tokens - 1

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Return whether this sample reports the prompt's logprobs: only the first of `n` does."""
        return self.params.prompt_logprobs is not None and self.output.index == 0

    @property
    def may_hit(self) -> bool:
        """Return whether the request can use cached blocks. False if it needs the logits of every position."""
        return not self.wants_prompt_logprobs

    def rows(self) -> list[SamplingRow]:
        """Return how to sample after the last known token, and after each draft."""
        drafts, row = self.drafts, self.row
        return [row, *(row.after(drafts[:i]) for i in range(1, len(drafts) + 1))] if drafts else [row]

    def append(
        self, token_id: int, logprobs: dict[int, Logprob] | None, eos_token_ids: Sequence[int]
    ) -> None:
        """Append one sampled token, show its final text, and finish if a stop condition holds.

        `eos_token_ids` are the model's end tokens, its own one first.
        """
        output = self.output
        if logprobs is not None and output.logprobs is not None:
            output.logprobs.append(logprobs)
        output.token_ids.append(token_id)  # from here on `restore` keeps the token
        self.token_ids.append(token_id)
        if logprobs is not None and output.cumulative_logprob is not None:
            output.cumulative_logprob += logprobs[token_id].logprob
        self._accept(token_id, len(output.token_ids), eos_token_ids)

    def restore(self) -> None:
        """Return an unfinished request to the state WAITING. Everything but its output tokens is computed again."""
        output, self.status = self.output, Status.WAITING
        self.token_ids[self.num_prompt_tokens :] = output.token_ids
        self.num_computed_tokens = self.num_cached_tokens = self.num_published = self.num_drafted_tokens = 0
        self.drafts, self.draft_probs, self.forks = [], None, []
        self.block_table, self.block_hashes = array("i"), []
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
        """End the sample and show the text that was held back. A stop string in that text becomes the stop reason."""
        if self.detokenizer is not None:
            hit = self._show(self.detokenizer.finish(), len(self.output.token_ids))
            self.output.text += self.stop_strings.finish()
            if hit and reason != "abort":
                reason, stop_reason = "stop", hit
        self._end(reason, stop_reason)

    def abort(self) -> None:
        """End the sample now, with the reason "abort"."""
        try:
            self.finish("abort")
        except Exception as error:  # its tokenizer's
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the sample with "error". Its tokens and text stay. Text that was held back is lost, because it may be the
        cause of the error."""
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
        """Add the final part of `text` to the output. Return the stop string that ended it, or None.

        A stop string that is complete at output token `min_tokens` or before does not count.
        """
        text, hit = self.stop_strings.push(text, count > self.params.min_tokens)
        self.output.text += text
        return hit

    def _end(self, reason: FinishReason, stop_reason: int | str | None) -> None:
        # The reason comes last, so a thread that sees it also sees the whole text.
        self.status, self.output.stop_reason, self.output.finish_reason = Status.FINISHED, stop_reason, reason

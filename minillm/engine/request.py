"""A request from arrival to its last token, and what its user sees of it.

`Request` is what the scheduler and the runner work on: one sample. `RequestOutput` is what the user asked for
and gets back: one prompt with `n` samples. An output is live: the engine appends to it, so whoever holds it
sees it grow, and nothing is copied per token.
"""

import enum
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from minillm.model.tokenizer import Detokenizer, StopStrings
from minillm.sampling import Logprob, SamplingParams, SamplingRow

FinishReason = Literal["stop", "length", "abort"]


class Status(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True)
class RequestMetrics:
    """When things happened, in `time.perf_counter` seconds; None for what has not happened yet."""

    arrival_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    finished_time: float | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One sample. `finish_reason` is "stop" (an end token or a stop string, named by `stop_reason`), "length",
    "abort", or None while it runs. `token_ids` includes the end token; `text` excludes it and the stop string.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True)
class RequestOutput:
    """A prompt and its samples. `prompt_logprobs[i]` belongs to prompt token i; the first has none."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    metrics: RequestMetrics
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None

    @property
    def finished(self) -> bool:
        return all(output.finish_reason is not None for output in self.outputs)


@dataclass(slots=True, eq=False)
class Request:
    """One sample on its way. `token_ids` is the prompt and all that was sampled; the first
    `num_computed_tokens` of them have their keys and values in the cache, in the blocks of `block_table`.

    `arrival` orders requests, and samples of one. `forks` are the other samples of the prompt, which begin when it is
    computed. `num_cached_tokens` is what the prefix cache contributed at the last admission; `block_hashes` name the
    first full blocks (cache/prefix.py).
    """

    request_id: str
    params: SamplingParams
    token_ids: list[int]
    num_prompt_tokens: int
    max_tokens: int
    row: SamplingRow
    output: CompletionOutput
    group: RequestOutput
    stop_strings: StopStrings
    detokenizer: Detokenizer | None = None
    arrival: tuple[int, int] = (0, 0)
    priority: int = 0
    forks: list["Request"] = field(default_factory=list)
    status: Status = Status.WAITING
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    block_table: "array[int]" = field(default_factory=lambda: array("i"))
    block_hashes: list[bytes] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Prompt logprobs belong to the prompt, so the first sample alone computes them."""
        return self.params.prompt_logprobs is not None and self.output.index == 0

    @property
    def may_hit(self) -> bool:
        """Whether the prefix cache may stand in for computing: not where every position's logits are wanted."""
        return not self.wants_prompt_logprobs

    @property
    def _may_stop(self) -> bool:
        return len(self.output.token_ids) >= self.params.min_tokens

    def append(
        self, token_id: int, logprobs: dict[int, Logprob] | None, eos_token_ids: Sequence[int]
    ) -> None:
        """Take one sampled token, show what text of it is final, and finish where a stop condition holds."""
        output, params = self.output, self.params
        self.token_ids.append(token_id)
        output.token_ids.append(token_id)
        if logprobs is not None and output.logprobs is not None and output.cumulative_logprob is not None:
            output.logprobs.append(logprobs)
            output.cumulative_logprob += logprobs[token_id].logprob
        ends = token_id in eos_token_ids and not params.ignore_eos
        if self._may_stop and (ends or token_id in (params.stop_token_ids or ())):
            self.finish("stop", token_id)
        elif self.detokenizer is not None and (hit := self._show(self.detokenizer.push(token_id))):
            self._end("stop", hit)
        elif len(output.token_ids) >= self.max_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason, stop_reason: int | str | None = None) -> None:
        """End the sample and give out the text that was held back; a stop string found in it ended the sample first."""
        if self.detokenizer is not None:
            hit = self._show(self.detokenizer.finish())
            self.output.text += self.stop_strings.finish()
            if hit and reason != "abort":
                reason, stop_reason = "stop", hit
        self._end(reason, stop_reason)

    def _show(self, text: str) -> str | None:
        """Add to the output what of `text` is final; returns the stop string that ended it.

        A stop string that is complete within the first `min_tokens` tokens does not count.
        """
        counts = len(self.output.token_ids) > self.params.min_tokens
        text, hit = self.stop_strings.push(text, counts)
        self.output.text += text
        return hit

    def _end(self, reason: FinishReason, stop_reason: int | str | None) -> None:
        # The reason comes last: whoever sees it in another thread has seen the whole text.
        self.status, self.output.stop_reason, self.output.finish_reason = Status.FINISHED, stop_reason, reason

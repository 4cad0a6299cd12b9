"""One step as plain data: the runner's input, without any request.

A `StepInput` holds only numbers. It can be pickled, sent to another process, logged, or made by a test without
requests. The engine keeps `LogitRows`, which say which request owns which rows of the logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minillm.batch import Chunk
from minillm.engine.request import Request, Status
from minillm.engine.scheduler import Scheduled

LogitRows = tuple[Request, int, int]
"""A request, the number of its rows for prompt logprobs, and the number of rows after them that it samples from."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """The tokens to compute, the rows that need logits, and the pairs (from, to) of blocks to copy first.

    `chunks` are concatenated into T rows, and `logit_rows` are increasing indices into these rows. `taps` asks for
    hidden states too. It lists the layers whose outputs to return in addition to the last one's; None asks for none.
    """

    chunks: list[Chunk]
    logit_rows: list[int]
    copies: list[tuple[int, int]]
    taps: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, scheduled: Scheduled, copies: Sequence[tuple[int, int]] = (), taps: tuple[int, ...] | None = None
    ) -> tuple["StepInput", list[LogitRows]]:
        """Return the input of a step that computes the scheduled tokens, and the owners of its rows of logits.

        A request that reaches its last known token samples from that token and from each draft after it. A request with
        prompt logprobs gets a row for each prompt token of this step.
        """
        chunks, logit_rows, owners, start = [], list[int](), [], 0
        for request, num_tokens in scheduled:
            computed, drafts, end = request.num_computed_tokens, request.drafts, start + num_tokens
            token_ids = request.token_ids[computed : computed + num_tokens]
            chunks.append(Chunk(token_ids + drafts if drafts else token_ids, computed, request.block_table))
            num_rows = len(logit_rows)
            if request.params.prompt_logprobs is not None:
                logit_rows += [start - computed + position for position in _unreported(request, num_tokens)]
            num_prompt_rows, num_samples = len(logit_rows) - num_rows, 0
            if len(token_ids) + computed == len(request.token_ids) and request.status is not Status.FINISHED:
                num_samples = 1 + len(drafts)
                logit_rows += range(end - num_samples, end)
            if num_prompt_rows or num_samples:
                owners.append((request, num_prompt_rows, num_samples))
            start = end
        return cls(chunks, logit_rows, list(copies), taps), owners


def _unreported(request: Request, num_tokens: int) -> range:
    """Return the positions of this step whose next token is a prompt token without a logprob so far."""
    known = request.result.prompt_logprobs
    if known is None or not request.wants_prompt_logprobs:
        return range(0)
    computed = request.num_computed_tokens
    return range(max(computed, len(known) - 1), min(computed + num_tokens, request.num_prompt_tokens - 1))

"""One step as plain data: what the runner needs to know of the scheduled requests, and nothing else.

A `StepInput` holds numbers only, so it can be pickled, sent to another process, logged, or made by a test without a
single request. Which request owns which row of the logits stays with the engine, as `LogitRows`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from minillm.batch import Chunk
from minillm.engine.request import Request, Status
from minillm.engine.scheduler import Scheduled

LogitRows = tuple[Request, int, int]
"""A request, the number of its rows that judge its prompt, and the number of those after them that it samples from."""


@dataclass(frozen=True, slots=True)
class StepInput:
    """The tokens to compute, the rows that want logits, and the blocks (from, to) to copy before.

    `chunks` are laid end to end as T rows; `logit_rows` are increasing indices into them. `taps` asks for hidden states
    too: None for none of them, else the layers whose outputs are wanted besides the last.
    """

    chunks: list[Chunk]
    logit_rows: list[int]
    copies: list[tuple[int, int]]
    taps: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, scheduled: Scheduled, copies: Sequence[tuple[int, int]] = (), taps: tuple[int, ...] | None = None
    ) -> tuple["StepInput", list[LogitRows]]:
        """Lay out the scheduled tokens. A request that reaches its last known token samples from there and from each
        draft after it; one that wants prompt logprobs gets a row for each prompt token of this step."""
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
    """The positions of this step whose next token is a prompt token that has no logprob yet."""
    known = request.result.prompt_logprobs
    if known is None or not request.wants_prompt_logprobs:
        return range(0)
    computed = request.num_computed_tokens
    return range(max(computed, len(known) - 1), min(computed + num_tokens, request.num_prompt_tokens - 1))

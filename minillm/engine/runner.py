"""The runner: scheduled requests in, logits out. The only owner of the model's tensors between steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.contiguous import KVCache, NoCache
from minillm.cache.paged import PagedKVCache
from minillm.engine.graphs import DecodeGraphs
from minillm.engine.request import Request
from minillm.engine.scheduler import Scheduled
from minillm.model.transformer import Transformer
from minillm.sampling import Logprob, gather_logprobs

PROMPT_ROWS_AT_ONCE = 256  # rows of prompt logits in memory at a time: [256, vocab] float32


@dataclass(frozen=True, slots=True)
class StepOutput:
    """`logits` [N, vocab] float32, one row for each request of `sampling`; prompt logprobs where asked for."""

    sampling: list[Request]
    logits: Tensor | None
    prompt_logprobs: list[tuple[Request, list[dict[int, Logprob]]]]


class Runner:
    """Holds a model and its cache, and runs one step of it at a time."""

    def __init__(
        self, model: Transformer, cache: KVCache | NoCache, graphs: DecodeGraphs | None = None
    ) -> None:
        self.model, self.cache, self.graphs = model, cache, graphs
        self.vocab_size = model.config.vocab_size

    def forward(self, scheduled: Scheduled, copies: Sequence[tuple[int, int]] = ()) -> StepOutput:
        """Copy blocks (from, to) where a fork is about to write, then compute every scheduled token; a request that
        reaches its last token gets logits to sample from."""
        if copies:
            assert isinstance(self.cache, PagedKVCache)
            self.cache.copy_blocks(copies)
        chunks, last_rows, sampling, end = [], [], [], 0
        for request, num_tokens in scheduled:
            start = request.num_computed_tokens
            token_ids = request.token_ids[start : start + num_tokens]
            chunks.append(Chunk(token_ids, start, request.block_table))
            end += num_tokens
            if start + num_tokens == request.num_tokens:
                sampling.append(request)
                last_rows.append(end - 1)
        with torch.inference_mode():
            batch = Batch.of(chunks, self.cache.block_size, self.model.device)
            if self.graphs is not None and end == len(sampling):
                logits = self.graphs.run(batch)  # [N, vocab]
                if logits is not None:
                    return StepOutput(sampling, logits, [])
            hidden, logits = self.model(batch, self.cache), None  # [T, hidden]
            if sampling:
                rows = hidden if len(last_rows) == len(hidden) else hidden[last_rows]
                logits = self.model.logits(rows)  # [N, vocab]
            return StepOutput(sampling, logits, self._prompt_logprobs(scheduled, hidden))

    def _prompt_logprobs(
        self, scheduled: Scheduled, hidden: Tensor
    ) -> list[tuple[Request, list[dict[int, Logprob]]]]:
        """What the model made of each prompt token of this step that follows one of this step's positions."""
        found, end = [], 0
        for request, num_tokens in scheduled:
            start, end = end, end + num_tokens
            if not request.wants_prompt_logprobs or request.group.prompt_logprobs is None:
                continue
            computed = request.num_computed_tokens
            first = max(
                computed, len(request.group.prompt_logprobs) - 1
            )  # what is known is not reported again
            last = min(computed + num_tokens, request.num_prompt_tokens - 1)
            if first >= last:
                continue
            targets = torch.tensor(request.token_ids[first + 1 : last + 1], device=hidden.device)
            rows = hidden[start + first - computed : start + last - computed]
            report: list[dict[int, Logprob]] = []
            for part, ids in zip(
                rows.split(PROMPT_ROWS_AT_ONCE), targets.split(PROMPT_ROWS_AT_ONCE), strict=True
            ):
                k = request.params.prompt_logprobs or 0
                report += gather_logprobs(self.model.logits(part), ids, k, self.vocab_size)
            found.append((request, report))
        return found

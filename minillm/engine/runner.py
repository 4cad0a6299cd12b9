"""The runner: it runs the model on one step and returns logits. It knows tokens and blocks, but no requests."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minillm.batch import Batch
from minillm.cache.kv_cache import KVCache, NoCache
from minillm.engine.graphs import DecodeGraphs
from minillm.engine.step import StepInput
from minillm.model.transformer import Hidden, Transformer


@dataclass(frozen=True, slots=True)
class StepOutput:
    """`logits` [N, vocab] float32, one row for each of `StepInput.logit_rows`, or None if there are none.

    `hidden` has the states of all T tokens if `StepInput.taps` asked for them. The next step may overwrite both.
    """

    logits: Tensor | None
    hidden: Hidden | None = None


class Runner:
    """Holds a model and its cache, and runs one step of it at a time.

    `graphs` has recorded steps with one token per request, and `verify_graphs` those with a few. `draft_cache` is the
    cache of a draft model. It has the same blocks, and each block is copied in both.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache | NoCache,
        graphs: DecodeGraphs | None = None,
        draft_cache: KVCache | None = None,
        verify_graphs: DecodeGraphs | None = None,
    ) -> None:
        self.model, self.cache, self.draft_cache = model, cache, draft_cache
        self.graphs, self.verify_graphs = graphs, verify_graphs

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (from, to) in the cache, and in that of a draft model."""
        for cache in (self.cache, self.draft_cache):
            if isinstance(cache, KVCache):
                cache.copy_blocks(copies)

    def run(self, step: StepInput) -> StepOutput:
        """Copy the step's blocks, then compute its tokens and return their logits.

        If each request computes few tokens, the step is replayed from a recording of its size, if there is one.
        """
        if step.copies:
            self.copy_blocks(step.copies)
        with torch.inference_mode():
            batch = Batch.of(step.chunks, self.cache.block_size, self.model.device)
            num_tokens = len(batch.token_ids)
            for graphs in (self.graphs, self.verify_graphs) if step.logit_rows else ():
                if graphs is not None and graphs.taps == step.taps:
                    logits = graphs.run(batch)  # [T, vocab]
                    if logits is not None:
                        every = len(step.logit_rows) == num_tokens
                        return StepOutput(logits if every else logits[step.logit_rows], graphs.hidden)
            if step.taps is None:
                hidden, last = None, self.model(batch, self.cache)  # [T, hidden]
            else:
                hidden = self.model.hidden_states(batch, self.cache, step.taps)
                last = hidden.last
            if not step.logit_rows:
                return StepOutput(None, hidden)
            rows = last if len(step.logit_rows) == num_tokens else last[step.logit_rows]
            return StepOutput(self.model.logits(rows), hidden)

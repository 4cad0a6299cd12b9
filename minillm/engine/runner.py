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

    `draft_cache` is the cache of a draft model. It has the same blocks, and each block is copied in both.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache | NoCache,
        graphs: DecodeGraphs | None = None,
        draft_cache: KVCache | None = None,
    ) -> None:
        self.model, self.cache, self.graphs, self.draft_cache = model, cache, graphs, draft_cache

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy blocks (from, to) in the cache, and in that of a draft model."""
        for cache in (self.cache, self.draft_cache):
            if isinstance(cache, KVCache):
                cache.copy_blocks(copies)

    def run(self, step: StepInput) -> StepOutput:
        """Copy the step's blocks, then compute its tokens and return their logits.

        If every request computes one token and needs its logits, the step is replayed from a recording of its size, if
        there is one.
        """
        if step.copies:
            self.copy_blocks(step.copies)
        with torch.inference_mode():
            batch = Batch.of(step.chunks, self.cache.block_size, self.model.device)
            num_tokens = len(batch.token_ids)
            if self.graphs is not None and step.taps is None and len(step.logit_rows) == num_tokens:
                logits = self.graphs.run(batch)  # [N, vocab]
                if logits is not None:
                    return StepOutput(logits)
            if step.taps is None:
                hidden, last = None, self.model(batch, self.cache)  # [T, hidden]
            else:
                hidden = self.model.hidden_states(batch, self.cache, step.taps)
                last = hidden.last
            if not step.logit_rows:
                return StepOutput(None, hidden)
            rows = last if len(step.logit_rows) == num_tokens else last[step.logit_rows]
            return StepOutput(self.model.logits(rows), hidden)

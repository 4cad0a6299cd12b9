"""A draft model: a smaller model of the same vocabulary writes the next tokens, one after the other.

It keeps its own keys and values in the same blocks as the model: one manager, one block table per request, two caches.
So prefix hits, forks, copies and preemption hold for both. The number `Request.num_drafted_tokens` says how far its
keys and values reach. It always computes the tokens after them, one or two in a step (two if all drafts were accepted,
because it never computed its own last draft), and the rest of a prompt.

Source: Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), section 2; Chen et al. 2023 (arXiv 2302.01318).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Chunk
from minillm.cache.kv_cache import KVCache
from minillm.engine.proposer import Computed, Part
from minillm.engine.runner import Runner
from minillm.engine.step import StepInput
from minillm.sampling import (
    Drafts,
    SamplingRow,
    Stream,
    draw,
    probabilities,
    process_logits,
    uniform,
)


class DraftModel:
    """Proposes what the model of `runner` would write.

    The drafts are its most probable tokens (`probabilistic=False`), which count as certain, or they are drawn from its
    distribution, with the request's own sampling parameters. Only tokens below `vocab_size` are proposed, and
    `probs` has `num_logits` columns, as the logits of the target model: padding may differ between the two.
    """

    taps: tuple[int, ...] | None = None

    def __init__(
        self,
        runner: Runner,
        num_speculative_tokens: int,
        vocab_size: int,
        num_logits: int,
        probabilistic: bool = False,
    ) -> None:
        assert isinstance(runner.cache, KVCache)
        self.runner = runner
        self.cache: KVCache | None = runner.cache
        self.num_speculative_tokens, self.probabilistic = num_speculative_tokens, probabilistic
        self.vocab_size, self.num_logits = vocab_size, num_logits

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit`, after computing the tokens that the cache lacks."""
        parts = computed.parts
        token_ids: list[list[int]] = [[] for _ in parts]
        probs: list[list[Tensor]] = [[] for _ in parts]
        errors: set[int] = set()
        active = [i for i, part in enumerate(parts) if part.limit]
        logits = self._read(parts)
        while active:
            rows = [_row(part.request.row, token_ids[i]) for i, part in _chosen(parts, active)]
            drafts, q, failed = self._choose(logits, rows)
            for at, i in enumerate(active):
                if at in failed:
                    errors.add(i)
                    continue
                token_ids[i].append(drafts[at])
                if q is not None:
                    probs[i].append(q[at])
            active = [i for i in active if i not in errors and len(token_ids[i]) < parts[i].limit]
            if active:
                logits = self._next(parts, active, token_ids)
        for i, part in enumerate(parts):
            if part.limit:  # the last draft was never computed
                part.request.num_drafted_tokens = part.request.num_tokens + max(0, len(token_ids[i]) - 1)
        return [Drafts(ids, torch.stack(q) if q else None) for ids, q in zip(token_ids, probs, strict=True)]

    def _read(self, parts: Sequence[Part]) -> Tensor | None:
        """Compute the tokens that the cache lacks. Return the logits after the last token of each part with a limit."""
        chunks, last, num_rows = [], [], 0
        written, size = set[int](), self.runner.cache.block_size
        for part in parts:
            request, table = part.request, part.request.block_table
            start = min(request.num_drafted_tokens, request.num_tokens - 1)
            # Of a part without drafts, the tokens that the model has computed: no block is allocated beyond them.
            end = request.num_tokens if part.limit else request.num_computed_tokens
            # A fork shares blocks with its parent, which has computed them.
            start = next((p for p in range(start, end) if table[p // size] not in written), max(start, end))
            if start < end:
                chunks.append(Chunk(self._known(request.token_ids[start:end]), start, table))
                num_rows += end - start
                written.update(table[start // size : -(-end // size)])
            if part.limit:
                last.append(num_rows - 1)
            else:
                request.num_drafted_tokens = max(start, end)
        return self.runner.run(StepInput(chunks, last, [])).logits if chunks else None

    def _known(self, token_ids: Sequence[int]) -> list[int]:
        """Return `token_ids` for the draft model. A prompt may contain padding of the target that it does not have."""
        last = self.runner.model.config.vocab_size - 1
        return [min(token_id, last) for token_id in token_ids]

    def _next(self, parts: Sequence[Part], active: list[int], token_ids: list[list[int]]) -> Tensor | None:
        """Compute the newest draft of each active part, and return the logits after it."""
        chunks = [
            Chunk(
                token_ids[i][-1:], part.request.num_tokens + len(token_ids[i]) - 1, part.request.block_table
            )
            for i, part in _chosen(parts, active)
        ]
        return self.runner.run(StepInput(chunks, list(range(len(chunks))), [])).logits

    def _choose(
        self, logits: Tensor | None, rows: Sequence[SamplingRow]
    ) -> tuple[list[int], Tensor | None, set[int]]:
        """Return a draft for each row, the distributions [R, V] if it was drawn, and the rows that have no draft."""
        assert logits is not None
        logits = logits[:, : self.vocab_size]
        if not self.probabilistic:
            return logits.argmax(-1).tolist(), None, set()
        errors: dict[int, BaseException] = {}
        logits = F.pad(logits, (0, self.num_logits - logits.shape[1]))
        q = probabilities(process_logits(logits, rows, self.vocab_size, errors), rows)
        u = uniform([row.seed for row in rows], [row.position for row in rows], Stream.DRAFT)
        drafts: list[int] = draw(q, torch.from_numpy(u).to(q.device)).tolist()
        return drafts, q, set(errors)


def _chosen(parts: Sequence[Part], active: list[int]) -> list[tuple[int, Part]]:
    return [(i, parts[i]) for i in active]


def _row(row: SamplingRow, drafts: Sequence[int]) -> SamplingRow:
    """Return how to sample after `drafts`. Logits processors are left out: they belong to the model's logits."""
    row = row.after(drafts) if drafts else copy.copy(row)
    if row.params.logits_processors:
        row.params = replace(row.params, logits_processors=None)
    return row

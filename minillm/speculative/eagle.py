"""EAGLE-3: a head of one decoder layer that reads the hidden states of the model and writes the next tokens.

A draft model has to understand the text by itself. The head does not: the model has just computed a hidden state for
every token, and the head reads three of them, from an early, a middle and a late layer, fused into one *feature*:

    feature g of position p = fc(hidden states of position p)                       from the model
    input                   = [norm(embedding of token p + 1), norm(g)]             twice as wide as the model
    output g'               = decoder layer(input), added to g                      logits of token p + 2 = norm(g') W

The feature says what the model expected at position p + 1, and the token says what was sampled there. For the second
draft, the model has computed nothing yet, so the head's own output g' is the feature of the next position, and so on.

The head's keys and values are in the same blocks as the model's. Those of position p depend on token p + 1: see
`KVCacheManager.needs_next_token`.

Source: Li et al. 2025, "EAGLE-3" (arXiv 2503.01840), section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache
from minillm.engine.proposer import Computed, Part
from minillm.model.linear import Projection
from minillm.model.transformer import Cache, Norm, Transformer
from minillm.ops import Ops
from minillm.sampling import Drafts


@dataclass(frozen=True)
class EagleHead:
    """The weights of a head. Its decoder layer is a `Transformer` of one block that reads two vectors per token.

    `decoder` has the embedding of all tokens, and logits for the draft vocabulary only: entry i stands for the token
    `target_ids[i]`. `taps` are the layers of the model after which the hidden states are read. `norm_before_residual`
    adds the layer's output to the normed feature, and not to the feature itself.
    """

    decoder: Transformer
    fc: Projection  # [T, len(taps) * hidden] -> [T, hidden]
    hidden_norm: Norm
    target_ids: Tensor  # [draft vocabulary] int64
    taps: tuple[int, ...]
    norm_before_residual: bool = False

    def with_ops(self, ops: Ops) -> "EagleHead":
        """Return the same head, over the same weights, on other operations."""
        return replace(self, decoder=self.decoder.with_ops(ops))

    def fuse(self, hidden: Sequence[Tensor]) -> Tensor:
        """Return the features [T, hidden] of the model's hidden states, one tensor [T, hidden] per tap."""
        return self.fc(torch.cat(tuple(hidden), -1), self.decoder.ops)

    def __call__(self, batch: Batch, features: Tensor, cache: Cache) -> tuple[Tensor, Tensor]:
        """Return what the logits are made from, and the next features, both [T, hidden].

        `batch` has token p + 1 at position p, and `features` [T, hidden] are those of position p.
        """
        decoder, [block] = self.decoder, self.decoder.weights.blocks
        token, feature = (
            decoder.norm(decoder.embed(batch), block.attention_norm),
            decoder.norm(features, self.hidden_norm),
        )
        residual = feature if self.norm_before_residual else features
        x = torch.cat((token, feature), -1)  # [T, 2 hidden]
        x = decoder.attention(0, block, x, decoder.angles(batch), batch, cache)
        x, residual = decoder.add_norm(x, residual, block.mlp_norm)
        x = block.mlp(x, decoder.ops)
        return decoder.add_norm(x, residual, decoder.weights.final_norm)

    def logits(self, x: Tensor) -> Tensor:
        """Return the score of every entry of the draft vocabulary, [N, draft vocabulary] float32, for x [N, hidden]."""
        return self.decoder.weights.lm_head(x, self.decoder.ops).float()


class Eagle:
    """Proposes the most probable tokens of an EAGLE-3 head. Each draft counts as certain.

    Every step it computes the positions that the model has just computed, of prompts too, because their hidden states
    are not kept. So its keys and values reach as far as the model's: `Request.num_drafted_tokens` follows
    `num_computed_tokens`. Those of drafts are written again when the model has verified them.
    """

    def __init__(self, head: EagleHead, cache: KVCache, num_speculative_tokens: int) -> None:
        self.head, self.num_speculative_tokens = head, num_speculative_tokens
        self.cache: KVCache | None = cache
        self.taps: tuple[int, ...] | None = head.taps
        self._kv = cache

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit`, after computing the positions of the step."""
        parts = computed.parts
        token_ids: list[list[int]] = [[] for _ in parts]
        with torch.inference_mode():
            x, features = self._read(computed)
            active = [i for i, part in enumerate(parts) if part.limit]
            while active:
                drafts = self.head.target_ids[self.head.logits(x).argmax(-1)]
                for i, draft in zip(active, drafts.tolist(), strict=True):
                    token_ids[i].append(draft)
                more = [at for at, i in enumerate(active) if len(token_ids[i]) < parts[i].limit]
                active = [active[at] for at in more]
                if active:
                    x, features = self._run([_next(parts[i], token_ids[i]) for i in active], features[more])
        return [Drafts(ids) for ids in token_ids]

    def _read(self, computed: Computed) -> tuple[Tensor, Tensor]:
        """Compute the positions of the step. Return both outputs for the last one of each part with a limit."""
        assert computed.hidden is not None
        chunks, rows, last = list[Chunk](), list[int](), list[int]()
        written = set[int]()
        for part in computed.parts:
            request, table = part.request, part.request.block_table
            end = request.num_computed_tokens
            # A fork computes only what its parent does not: it shares the parent's other blocks.
            own = (p for p in range(part.position, end) if table[p // self._kv.block_size] not in written)
            start = next(own, end)
            if start < end:
                chunks.append(Chunk(request.token_ids[start + 1 : end + 1], start, table))
                rows += range(part.row + start - part.position, part.row + end - part.position)
                written.update(table[start // self._kv.block_size : -(-end // self._kv.block_size)])
            if part.limit:
                last.append(len(rows) - 1)
            request.num_drafted_tokens = end
        if not chunks:
            nothing = computed.hidden.last[:0]
            return nothing, nothing
        x, features = self._run(chunks, self.head.fuse([tap[rows] for tap in computed.hidden.taps]))
        return x[last], features[last]

    def _run(self, chunks: Sequence[Chunk], features: Tensor) -> tuple[Tensor, Tensor]:
        batch = Batch.of(chunks, self._kv.block_size, self.head.decoder.device)
        return self.head(batch, features, self._kv)


def _next(part: Part, drafts: Sequence[int]) -> Chunk:
    """Return the newest draft as the input of its position, which is one before its own place in the text."""
    request = part.request
    return Chunk(drafts[-1:], request.num_computed_tokens + len(drafts) - 1, request.block_table)

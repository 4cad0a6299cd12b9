"""The decoder, in reading order: tokens to hidden states, block by block, and hidden states to logits.

One class serves every family; a `ModelConfig` switches its parts. All tensors are flat over the T tokens of a
step. The model owns weights and nothing else: memory of past tokens is reached through one call,
`cache.attend(layer, q, k, v, batch)`.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch
from minillm.config import ModelConfig
from minillm.model.linear import Projection
from minillm.model.rope import rope_table
from minillm.ops import Ops


class Cache(Protocol):
    """What a model needs of a KV cache."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Keep k and v [T, H_kv, D] of this step's tokens and return the attention of q [T, H, D], [T, H, D]."""
        ...


@dataclass(slots=True)
class Norm:
    """Weight [hidden] of an RMSNorm, and for a LayerNorm its bias."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(slots=True)
class Block:
    """The weights of one decoder layer; q, k, v and gate, up are fused along `out`."""

    input_norm: Norm
    qkv: Projection
    o: Projection
    post_norm: Norm
    up: Projection
    down: Projection
    q_norm: Norm | None = None
    k_norm: Norm | None = None


@dataclass(slots=True)
class Weights:
    """All tensors of a model, on one device and in one dtype. `lm_head` may share the embedding's memory."""

    embed: Tensor  # [vocab, hidden]
    blocks: list[Block]
    final_norm: Norm
    lm_head: Projection
    position_embed: Tensor | None = None  # [positions, hidden]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class Transformer:
    """`model(batch, cache)` -> hidden states [T, hidden]; `model.logits(hidden)` -> [N, vocab] float32."""

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops | None = None) -> None:
        self.config, self.weights, self.ops = config, weights, ops or Ops()
        self.device, self.dtype = weights.embed.device, weights.embed.dtype
        self.activation = ACTIVATIONS[config.activation]
        if config.rope is not None:
            cos, sin = rope_table(config.rope, config.head_dim, config.max_position_embeddings)
            self.cos, self.sin = (t.to(self.device, self.dtype) for t in (cos, sin))

    def with_ops(self, ops: Ops) -> "Transformer":
        """The same model, weights and all, on other operations."""
        other = copy(self)
        other.ops = ops
        return other

    def with_projections(self, change: Callable[[Projection], Projection]) -> "Transformer":
        """The same model with `change(p)` in the place of each projection p, the head's included."""
        other = copy(self)
        blocks = [
            replace(b, qkv=change(b.qkv), o=change(b.o), up=change(b.up), down=change(b.down))
            for b in self.weights.blocks
        ]
        other.weights = replace(self.weights, blocks=blocks, lm_head=change(self.weights.lm_head))
        return other

    def __call__(self, batch: Batch, cache: Cache) -> Tensor:
        """Compute the batch's T tokens against `cache`; returns the final hidden states [T, hidden]."""
        with torch.inference_mode():
            residual = self.embed(batch)  # [T, hidden]
            angles = self.angles(batch)
            x = self.norm(residual, self.weights.blocks[0].input_norm)
            for layer, block in enumerate(self.weights.blocks):
                x = self.attention(layer, block, x, angles, batch, cache)
                x, residual = self.add_norm(x, residual, block.post_norm)
                x = self.mlp(block, x)
                x, residual = self.add_norm(x, residual, self.norm_after(layer))
            return x

    def embed(self, batch: Batch) -> Tensor:
        x = F.embedding(batch.token_ids, self.weights.embed)
        if self.weights.position_embed is not None:
            x = x + F.embedding(batch.positions, self.weights.position_embed)
        return x

    def angles(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """cos and sin [T, 1, D] of the tokens' positions: read once, used by every layer."""
        if self.config.rope is None:
            return None
        return self.cos[batch.positions], self.sin[batch.positions]

    def attention(
        self,
        layer: int,
        block: Block,
        x: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        batch: Batch,
        cache: Cache,
    ) -> Tensor:
        config, num_tokens = self.config, x.shape[0]
        num_q, num_kv = config.num_attention_heads, config.num_key_value_heads
        heads = block.qkv(x).view(num_tokens, num_q + 2 * num_kv, config.head_dim)  # [T, H + 2 H_kv, D]
        qk, v = heads[:, : num_q + num_kv], heads[:, num_q + num_kv :]
        if block.q_norm is not None and block.k_norm is not None:
            q, k = self.norm(qk[:, :num_q], block.q_norm), self.norm(qk[:, num_q:], block.k_norm)
            qk = torch.cat([q, k], 1)
        if angles is not None:
            qk = self.ops.rope(qk, *angles)
        out = cache.attend(layer, qk[:, :num_q], qk[:, num_q:], v, batch)  # [T, H, D]
        return block.o(out.reshape(num_tokens, config.q_size))

    def mlp(self, block: Block, x: Tensor) -> Tensor:
        h = block.up(x)  # [T, 2 M] when gated, else [T, M]
        return block.down(self.ops.swiglu(h) if self.config.gated_mlp else self.activation(h))

    def norm_after(self, layer: int) -> Norm:
        """The norm that follows a block: the next block's first, or the model's last."""
        blocks = self.weights.blocks
        return blocks[layer + 1].input_norm if layer + 1 < len(blocks) else self.weights.final_norm

    def norm(self, x: Tensor, norm: Norm) -> Tensor:
        if self.config.norm == "rms_norm":
            return self.ops.rms_norm(x, norm.weight, self.config.norm_eps)
        return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, self.config.norm_eps)

    def add_norm(self, x: Tensor, residual: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        if self.config.norm == "rms_norm":
            return self.ops.add_rms_norm(x, residual, norm.weight, self.config.norm_eps)
        residual = residual + x
        return self.norm(residual, norm), residual

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every vocabulary entry: hidden [N, hidden] -> [N, vocab] float32."""
        with torch.inference_mode():
            return self.weights.lm_head(hidden).float()

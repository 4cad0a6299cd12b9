"""The decoder, in reading order: tokens to hidden states, block by block, and hidden states to logits.

One class serves every family; a `ModelConfig` switches its parts. All tensors are flat over the T tokens of a
step. The model owns weights and nothing else: memory of past tokens is reached through one call,
`cache.attend(layer, q, k, v, batch)`.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch
from minillm.config import ModelConfig
from minillm.model.embedding import Embedding
from minillm.model.families import FAMILIES
from minillm.model.linear import Projection
from minillm.model.mlp import Mlp
from minillm.model.rope import rope_table
from minillm.ops import Ops
from minillm.packed import QuantizedWeight


class Cache(Protocol):
    """A KV cache as the model sees it."""

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
    """The weights of one decoder layer; `qkv` is q, k and v joined along `out`."""

    attention_norm: Norm
    qkv: Projection
    o: Projection
    mlp_norm: Norm
    mlp: Mlp
    q_norm: Norm | None = None
    k_norm: Norm | None = None

    def with_projections(self, change: Callable[[str, Projection], Projection]) -> "Block":
        """Return a new block with `change(role, projection)` in place of each projection."""
        return replace(
            self,
            qkv=change("qkv", self.qkv),
            o=change("o", self.o),
            mlp=self.mlp.with_projections(change),
        )


@dataclass(slots=True)
class Weights:
    """All weights of a model, on one device. `lm_head` may share the memory of `embed`."""

    embed: Embedding
    blocks: list[Block]
    final_norm: Norm
    lm_head: Projection
    position_embed: Embedding | None = None


def tensors_of(part: Any) -> Iterator[Tensor]:
    """Yield each tensor in memory of a dataclass or a list, and of the dataclasses and lists in them."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, QuantizedWeight):
        yield from part.tensors
    elif isinstance(part, list):
        for each in part:
            yield from tensors_of(each)
    elif is_dataclass(part):
        for field in fields(part):
            yield from tensors_of(getattr(part, field.name))


class Hidden(NamedTuple):
    """The final hidden states of a step [T, hidden], and those after each layer that was asked for."""

    last: Tensor
    taps: tuple[Tensor, ...]


class Transformer:
    """`model(batch, cache)` -> hidden states [T, hidden]; `model.logits(hidden)` -> [N, vocab] float32.

    The RoPE tables `cos` and `sin` [positions, 1, D] cover the longest sequence so far, or the length that was given to
    `with_context`. A longer sequence replaces them by new tensors.
    """

    def __init__(self, config: ModelConfig, weights: Weights, ops: Ops | None = None) -> None:
        self.config, self.weights, self.ops = config, weights, ops or Ops()
        self.device, self.dtype = weights.final_norm.weight.device, weights.final_norm.weight.dtype
        self.cos = self.sin = torch.empty(0, 1, config.head_dim, dtype=self.dtype, device=self.device)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take in memory. Memory that several of them share counts once.

        A projection counts with the tensors in its fields, if it is a dataclass as those of this package are.
        """
        memory = (tensor.untyped_storage() for tensor in tensors_of(self.weights))
        return sum({storage.data_ptr(): storage.nbytes() for storage in memory}.values())

    def with_ops(self, ops: Ops) -> "Transformer":
        """Return the same model, over the same weights, on other operations."""
        other = copy(self)
        other.ops = ops
        return other

    def with_blocks(self, change: Callable[[int, Block], Block]) -> "Transformer":
        """Return a model with `change(layer, block)` in place of each block. All other weights are shared."""
        other = copy(self)
        blocks = [change(layer, block) for layer, block in enumerate(self.weights.blocks)]
        other.weights = replace(self.weights, blocks=blocks)
        return other

    def with_projections(self, change: Callable[[str, Projection], Projection]) -> "Transformer":
        """Return a model with `change(name, projection)` in place of each projection. All other weights are shared.

        `name` is the checkpoint's: "model.layers.3.self_attn.o_proj", "lm_head". `families.Names.projection` has the
        rule for projections that are fused from several: "model.layers.3.self_attn.qkv".
        """
        names = FAMILIES[self.config.family].names
        other = self.with_blocks(
            lambda layer, block: block.with_projections(
                lambda role, projection: change(names.projection(role, layer), projection)
            )
        )
        other.weights.lm_head = change(names.lm_head, self.weights.lm_head)
        return other

    def with_context(self, max_model_len: int) -> "Transformer":
        """Return the same model with RoPE tables for sequences of `max_model_len` tokens.

        No sequence within that length replaces these tables, so a CUDA graph may record their addresses.
        """
        other = copy(self)
        other._make_rope_tables(max_model_len)
        return other

    def __call__(self, batch: Batch, cache: Cache) -> Tensor:
        """Compute the batch's T tokens against `cache`; return the final hidden states [T, hidden]."""
        return self.hidden_states(batch, cache).last

    def hidden_states(self, batch: Batch, cache: Cache, taps: Sequence[int] = ()) -> Hidden:
        """Compute the batch's T tokens; return the final hidden states and the residual stream after the layers `taps`.

        Each is [T, hidden], in the order of `taps`. Raises `ValueError` for a layer that the model does not have.
        """
        num_layers = len(self.weights.blocks)
        if unknown := [layer for layer in taps if not 0 <= layer < num_layers]:
            raise ValueError(f"taps: this model has layers 0 to {num_layers - 1} and no layer {unknown[0]}")
        tapped: dict[int, Tensor] = {}
        with torch.inference_mode():
            angles = self.angles(batch)
            residual = self.embed(batch)  # [T, hidden]
            x = self.norm(residual, self.weights.blocks[0].attention_norm)
            for layer, block in enumerate(self.weights.blocks):
                x = self.attention(layer, block, x, angles, batch, cache)
                x, residual = self.add_norm(x, residual, block.mlp_norm)
                x = block.mlp(x, self.ops)
                x, residual = self.add_norm(x, residual, self.norm_after(layer))
                if layer in taps:
                    tapped[layer] = residual
        return Hidden(x, tuple(tapped[layer] for layer in taps))

    def embed(self, batch: Batch) -> Tensor:
        """Return the embeddings [T, hidden] of the batch's tokens, and of their positions where they are learned."""
        x = self.weights.embed(batch.token_ids)
        if self.weights.position_embed is not None:
            x = x + self.weights.position_embed(batch.positions)
        return x

    def angles(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """Return cos and sin [T, 1, D] of the tokens' positions, for all layers; None for a model without RoPE.

        Raises `ValueError` for a sequence longer than the model's `max_position_embeddings`.
        """
        if self.config.rope is None:
            return None
        # Lengths come from the host's chunks: reading `batch.positions` would wait for the device.
        longest = max((chunk.seq_len for chunk in batch.chunks), default=0)
        if longest > len(self.cos):
            most = self.config.max_position_embeddings
            self._make_rope_tables(max(longest, min(2 * len(self.cos), most)))
        return self.cos[batch.positions], self.sin[batch.positions]

    def _make_rope_tables(self, num_positions: int) -> None:
        if num_positions > self.config.max_position_embeddings:
            raise ValueError(
                f"a sequence of {num_positions} tokens exceeds this model's max_position_embeddings="
                f"{self.config.max_position_embeddings}: shorten it"
            )
        if self.config.rope is not None:
            tables = rope_table(self.config.rope, self.config.head_dim, num_positions)
            self.cos, self.sin = (table.to(self.device, self.dtype) for table in tables)

    def attention(
        self,
        layer: int,
        block: Block,
        x: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        batch: Batch,
        cache: Cache,
    ) -> Tensor:
        """Return the attention half of a layer for the normed rows x [T, hidden], as [T, hidden]."""
        config, num_tokens = self.config, x.shape[0]
        num_q, num_kv = config.num_attention_heads, config.num_key_value_heads
        heads = block.qkv(x, self.ops).view(num_tokens, -1, config.head_dim)  # [T, H + 2 H_kv, D]
        qk, v = heads.split_with_sizes((num_q + num_kv, num_kv), 1)
        if block.q_norm is not None and block.k_norm is not None:
            q, k = qk.split_with_sizes((num_q, num_kv), 1)
            qk = torch.cat([self.norm(q, block.q_norm), self.norm(k, block.k_norm)], 1)
        if angles is not None:
            qk = self.ops.rope(qk, *angles)
        q, k = qk.split_with_sizes((num_q, num_kv), 1)
        out = cache.attend(layer, q, k, v, batch)  # [T, H, D]
        return block.o(out.reshape(num_tokens, config.q_size), self.ops)

    def norm_after(self, layer: int) -> Norm:
        """Return the norm that follows a layer: the next layer's first, or the model's last."""
        blocks = self.weights.blocks
        return blocks[layer + 1].attention_norm if layer + 1 < len(blocks) else self.weights.final_norm

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
        """Return the score of every vocabulary entry after each row: hidden [N, hidden] -> [N, vocab] float32."""
        with torch.inference_mode():
            return self.weights.lm_head(hidden, self.ops).float()

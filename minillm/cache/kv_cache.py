"""The KV cache: one pool of blocks per layer, which holds the keys and values of every request.

A token's place is its slot: `block_table[position // block_size] * block_size + position % block_size`. Two layouts use
the same code:

- paged: blocks of a few tokens, anywhere in the pool. A request holds as many as its tokens need.
- contiguous: one block of `max_model_len` tokens per request. The memory of the longest text is reserved when a
  request begins, even if the request has only 50 tokens.

`NoCache` keeps nothing, so every step computes the whole sequence again.

Source: Kwon et al. 2023 (arXiv 2309.06180), section 4.1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minillm.batch import Batch
from minillm.config import ModelConfig
from minillm.layer_kv import LayerKV
from minillm.ops import Ops, ops_for, self_attention


class NoCache:
    """Keep nothing: the memory of the naive loop. A step must contain every request from its first token."""

    nbytes = 0

    def __init__(self, config: ModelConfig, max_model_len: int) -> None:
        self.config, self.block_size = config, max_model_len

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Return the attention of q [T, H, D] over this step's own k and v [T, H_kv, D]."""
        return self_attention(q, k, v, batch, self.config.sliding_window(layer))


class KVCache:
    """Keep the keys and values of `num_blocks` blocks of `block_size` tokens, for each layer.

    A `dtype` of int8 or float8_e4m3fn makes a quantised cache (layer_kv.py). On a CPU the addresses are reserved at
    once, and each page takes memory when it is first written.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        ops: Ops | None = None,
    ) -> None:
        self.config, self.num_blocks, self.block_size = config, num_blocks, block_size
        self.ops = ops or ops_for(torch.device(device))
        shape = (num_blocks, block_size, config.num_key_value_heads, config.head_dim)
        self.layers = [LayerKV.empty(shape, dtype, device) for _ in range(config.num_hidden_layers)]

    @property
    def nbytes(self) -> int:
        """Return the size of all tensors in bytes, scales included."""
        return sum(tensor.nbytes for kv in self.layers for tensor in kv.tensors)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Write this step's k and v [T, H_kv, D] to their slots, then return the attention of q [T, H, D]."""
        kv = self.layers[layer]
        self.ops.write_kv(k, v, kv, batch.slot_mapping)
        return self.ops.paged_attention(q, kv, batch, self.config.sliding_window(layer))

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (from, to) in every layer, scales included. A fork thus gets its own block to write to."""
        device = self.layers[0].k.device
        source, target = (torch.tensor(blocks, device=device) for blocks in zip(*copies, strict=True))
        for kv in self.layers:
            for tensor in kv.tensors:
                tensor[target] = tensor[source]

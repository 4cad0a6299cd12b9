"""The contiguous KV cache: one stretch of memory a request, reserved whole when the request begins.

It is the paged layout with a single block per request: the block is `max_model_len` tokens long, and a
request's block table has one entry, its row. Keys and values are written in place, and a request alone is read in
place. What it costs is plain to see: a request of 50 tokens holds the memory of `max_model_len`.

`NoCache` is what came before: nothing is kept, so every step computes the whole sequence again.
"""

import torch
from torch import Tensor

from minillm.batch import Batch
from minillm.config import ModelConfig
from minillm.ops import Ops, self_attention


class NoCache:
    """The naive loop's memory: none. A step must hold every request from its first token on."""

    def __init__(self, config: ModelConfig, max_model_len: int) -> None:
        self.config, self.block_size = config, max_model_len
        self.nbytes = 0

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        return self_attention(q, k, v, batch, self.config.sliding_window(layer))


class KVCache:
    """Keys and values of `num_rows` requests of up to `max_model_len` tokens, for every layer.

    `k` and `v` are [layers, num_rows, max_model_len, H_kv, D]. On a CPU the memory is reserved at once and
    occupied page by page as it is written.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_rows: int,
        max_model_len: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        ops: Ops | None = None,
    ) -> None:
        self.config, self.num_rows, self.block_size, self.ops = config, num_rows, max_model_len, ops or Ops()
        shape = (
            config.num_hidden_layers,
            num_rows,
            max_model_len,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.k, self.v = (torch.empty(shape, dtype=dtype, device=device) for _ in range(2))
        self.nbytes = self.k.nbytes + self.v.nbytes

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        """Write this step's keys and values to their slots, then attend over each request's row."""
        k_cache, v_cache = self.k[layer], self.v[layer]
        self.ops.write_kv(k, v, k_cache, v_cache, batch.slot_mapping)
        return self.ops.paged_attention(q, k_cache, v_cache, batch, self.config.sliding_window(layer))

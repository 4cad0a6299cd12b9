"""Real queries, keys and values: the inputs of attention in each layer of a model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.ops import self_attention

BLOCK_SIZE = 1024  # tokens: the longest text


def attention_inputs(model: Any, token_ids: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Compute a text of up to 1,024 tokens in one step, and return the inputs of attention of each layer, on the CPU.

    They are q [T, H, D] and k and v [T, H_kv, D]. RoPE has been applied.
    """
    recorder = _Recorder()
    with torch.inference_mode():
        model(Batch.of([Chunk(list(token_ids), 0, [0])], BLOCK_SIZE, model.device), recorder)
    return recorder.layers


class _Recorder:
    """Compute attention without a cache, and keep its inputs."""

    def __init__(self) -> None:
        self.layers: list[tuple[Tensor, Tensor, Tensor]] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, batch: Batch) -> Tensor:
        self.layers.append((q.cpu().clone(), k.cpu().clone(), v.cpu().clone()))
        return self_attention(q, k, v, batch, None)

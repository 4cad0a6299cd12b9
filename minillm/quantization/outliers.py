"""Planted outliers: give a small model the salient channels that large models have.

In large models a few channels carry activations that are many times larger than the others (Dettmers et al. 2022, arXiv
2208.07339). A model of a few million parameters has none, so methods against outliers show no effect on it. Planting
makes them by folding backwards: the weight of a norm is multiplied in a few channels, and the columns of the next
matrix are divided. The model computes the same. What is measured on it must be labelled as planted.
"""

import math
from collections.abc import Sequence

import torch

from minillm.model.transformer import Block, Transformer
from minillm.quantization.folding import NORMS, fold_into_norm


def plant_outliers(model: Transformer, channels: Sequence[int], factor: float = 32.0) -> Transformer:
    """Return the same model with inputs of qkv and gate_up that are `factor` times as large in these channels.

    With a power of two as `factor` no number is rounded, so the logits stay equal. Raises `ValueError` for a channel
    that the model does not have, and for a factor that is not above 0.
    """
    hidden = model.config.hidden_size
    if unknown := [channel for channel in channels if not 0 <= channel < hidden]:
        raise ValueError(f"channel {unknown[0]}: this model has channels 0 to {hidden - 1}")
    if not 0 < factor < math.inf:
        raise ValueError(f"factor={factor}: give a finite number above 0, such as 32")
    s = torch.ones(hidden, dtype=model.dtype, device=model.device)
    s[list(channels)] = 1 / factor

    def planted(_: int, block: Block) -> Block:
        for role in NORMS:
            block, _exact = fold_into_norm(block, role, s, model.dtype)
        return block

    return model.with_blocks(planted)

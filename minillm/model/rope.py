"""The angles of rotary position embedding, and the three ways checkpoints stretch them to longer contexts.

Pair i of a head turns by `position * theta ** (-2 i / D)`: fast for the first pairs, ever slower for the last.
A model trained on short texts has never seen the slow pairs turn far; the scalings slow them further, so that
positions beyond the trained length look like ones inside it.
"""

import math

import torch
from torch import Tensor

from minillm.config import RopeConfig


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """Turn per position of each pair, [head_dim / 2] float32, and the factor on cos and sin (YaRN's only)."""
    plain = rope.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    match rope.type:
        case "default":
            return plain, 1.0
        case "linear":
            return plain / rope.factor, 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            implied = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
            return _yarn(
                plain, rope, head_dim
            ), implied if rope.attention_factor is None else rope.attention_factor


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    """Llama 3.1: keep pairs that turn often within the trained length, slow the rest by `factor`, blend between."""
    turns = rope.original_max_position_embeddings * plain / (2 * math.pi)
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * plain + (1 - keep) * plain / rope.factor


def _yarn(plain: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    """YaRN (Peng et al. 2023, arXiv 2309.00071): the blend is linear in the pair's index, not in its turns."""

    def pair_with_turns(turns: float) -> float:
        wavelength = rope.original_max_position_embeddings / turns
        return head_dim * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_with_turns(rope.beta_fast), pair_with_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    slow = (torch.arange(head_dim // 2, dtype=torch.float32) - low) / ((high - low) or 0.001)
    slow = slow.clamp(0, 1)
    return slow * plain / rope.factor + (1 - slow) * plain


def rope_table(rope: RopeConfig, head_dim: int, num_positions: int) -> tuple[Tensor, Tensor]:
    """cos and sin of every position, each [num_positions, 1, head_dim] float32, as `ops.rope` takes them."""
    frequency, scale = inverse_frequencies(rope, head_dim)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequency)  # [P, D / 2]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]

"""The angles of rotary position embedding, and the ways checkpoints stretch them to longer contexts.

Pair i of a head turns by `position * theta ** (-2 i / D)`: fast for the first pairs, ever slower for the last.
A model trained on short texts has never seen the slow pairs turn far; the scalings slow them further, so that
positions beyond the trained length look like ones inside it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from minillm.config import RopeConfig
from minillm.errors import CheckpointError
from minillm.model.config_keys import Key, Raw, read_keys, refusal, refuse_others


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """Turn per position of each pair, [head_dim / 2] float32, and the factor on cos and sin (YaRN's only)."""
    plain = rope.theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    match rope.type:
        case "default":
            return plain, 1.0
        case "linear":
            return plain / rope.factor, 1.0
        case "factors":
            return plain / torch.tensor(rope.factors), 1.0
        case "llama3":
            return _llama3(plain, rope), 1.0
        case "yarn":
            implied = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
            return _yarn(
                plain, rope, head_dim
            ), implied if rope.attention_factor is None else rope.attention_factor


def _llama3(plain: Tensor, rope: RopeConfig) -> Tensor:
    """Return Llama 3.1's frequencies: fast pairs unchanged, slow pairs divided by `factor`, and a blend in between.

    A pair is fast if it turns often within the trained length.
    """
    turns = rope.original_max_position_embeddings * plain / (2 * math.pi)
    keep = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = keep.clamp(0, 1)
    return keep * plain + (1 - keep) * plain / rope.factor


def _yarn(plain: Tensor, rope: RopeConfig, head_dim: int) -> Tensor:
    """Return YaRN's frequencies (Peng et al. 2023, arXiv 2309.00071): the blend is linear in the pair's index."""

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
    """Return cos and sin of every position, each [num_positions, 1, head_dim] float32, as `ops.rope` takes them."""
    frequency, scale = inverse_frequencies(rope, head_dim)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequency)  # [P, D / 2]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    return torch.cat([cos, cos], -1)[:, None], torch.cat([-sin, sin], -1)[:, None]


_LENGTH = Key(int, None, None)  # None: max_position_embeddings
_TYPES: dict[str, dict[str, Key]] = {
    "default": {},
    "linear": {"factor": Key(float)},
    "llama3": {
        "factor": Key(float),
        "original_max_position_embeddings": _LENGTH,
        "low_freq_factor": Key(float),
        "high_freq_factor": Key(float),
    },
    "yarn": {
        "factor": Key(float),
        "original_max_position_embeddings": _LENGTH,
        "beta_fast": Key(float, 32.0, 32.0),
        "beta_slow": Key(float, 1.0, 1.0),
        "attention_factor": Key(float, None, None),
        "truncate": Key(bool, True),
    },
}


def read_rope(raw: Raw, source: str, max_position_embeddings: int) -> RopeConfig:
    """Return the `RopeConfig` of a config.json, in the spelling of transformers 4 or 5.

    Version 4 writes `rope_theta` and `rope_scaling`; version 5 puts both into `rope_parameters`. Raises
    `CheckpointError` if both are there and differ, or if a value is not implemented.
    """
    spellings = {
        "rope_parameters": Key(dict, {}, {}),
        "rope_scaling": Key(dict, {}, {}),
    }
    given = [parameters for parameters in read_keys(raw, spellings, source).values() if parameters]
    theta = {"rope_theta": raw["rope_theta"]} if "rope_theta" in raw else {}
    ropes = [
        _rope_config({**theta, **parameters}, f"{source}: rope_parameters", max_position_embeddings)
        for parameters in given or [{}]
    ]
    if ropes[0] != ropes[-1]:
        raise CheckpointError(
            f"{source}: rope_parameters and rope_scaling disagree: remove the one that is wrong"
        )
    return ropes[0]


def _rope_config(raw: Raw, source: str, max_position_embeddings: int) -> RopeConfig:
    kind = raw.get("rope_type", raw.get("type", "default"))
    if not isinstance(kind, str) or kind not in _TYPES:
        raise refusal(source, "rope_type", kind, f"implemented: {', '.join(_TYPES)}")
    keys = _TYPES[kind] | {"rope_theta": Key(float, 10_000.0, None, fields=("theta",))}
    refuse_others(raw, {*keys, "rope_type", "type"}, source, f"not part of rope_type {kind!r}", {})
    values: dict[str, Any] = {"type": kind} | read_keys(raw, keys, source)
    if values["theta"] is None or values["theta"] <= 1:
        raise CheckpointError(f"{source}: rope_theta={values['theta']} must be above 1")
    if values.get("original_max_position_embeddings", 0) is None:
        values["original_max_position_embeddings"] = max_position_embeddings
    rope = RopeConfig(**values)
    if kind == "llama3" and rope.low_freq_factor >= rope.high_freq_factor:
        raise CheckpointError(
            f"{source}: low_freq_factor={rope.low_freq_factor} must be below high_freq_factor={rope.high_freq_factor}"
        )
    return rope

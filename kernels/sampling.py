"""Softmax, top-k and top-p over a vocabulary without a sort: one program a row, and a search for a threshold.

Sorting 150,000 logits to keep 50 of them orders 149,950 for nothing. All that truncation needs is the value of the last
token kept, and a threshold can be searched for: try one, count the tokens (top-k) or add up the probability (top-p)
at or above it, and halve the interval. The search goes over the bits of the float, taken as an integer in the same
order, so at most 32 passes over the row find the exact value, and most rows, which stay in the L2 cache, need fewer
(FlashInfer's sampling kernels search for a pivot too: Ye et al. 2025, arXiv 2501.01005).

The sets are exactly those of `minillm.sampling.truncation`: probability is added up in whole units of 2**-60, so that
no order of addition changes the sum, and of tokens tied for the last place the lowest ids stay.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
NUM_WARPS = 8
MASS_UNITS = tl.constexpr(2.0**60)  # the scale of a power of two is exact in float32


@triton.jit
def _ordered(x):
    """float32 as int32 in the same order: the bits of a negative number run backwards, so all but its sign are turned.

    -0.0 counts as 0.0, the equal of it.
    """
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _weight(x, MASS: tl.constexpr):
    """What a token adds to the sum that is searched in: its probability in units of 2**-60, or 1."""
    if MASS:
        return (x * MASS_UNITS).to(tl.int64)
    else:
        return tl.full(x.shape, 1, tl.int64)


@triton.jit
def _at_least(row_ptr, threshold, V: tl.constexpr, BLOCK: tl.constexpr, MASS: tl.constexpr):
    """The weight of all tokens whose value is at or above the threshold."""
    total = tl.zeros([BLOCK], tl.int64)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(row_ptr + i, mask=i < V, other=0.0)
        total += tl.where((i < V) & (_ordered(x) >= threshold.to(tl.int32)), _weight(x, MASS), 0)
    return tl.sum(total, 0)


@triton.jit
def _truncate(
    values_ptr,  # [R, V] float32, the rows row_stride apart
    target_ptr,  # [R] int64: the weight to reach
    keep_ptr,  # [R, V] bool
    row_stride,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    MASS: tl.constexpr,
):
    """Keep the best tokens whose weights reach the target, and no token more."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = values_ptr + row * row_stride
    target = tl.load(target_ptr + row)

    # The highest threshold with enough at or above it, by bisection: `low` has enough (or is below every number, where
    # rounding left the whole row short), `high` has too little. A threshold that hits the target need not be refined.
    low, high = tl.full([], -(2**31), tl.int64), tl.full([], 2**31 - 1, tl.int64)
    while high - low > 1:
        middle = (low + high) >> 1
        reached = _at_least(row_ptr, middle, V, BLOCK, MASS)
        if reached >= target:
            low = middle
        else:
            high = middle
        if reached == target:
            high = low + 1

    # Tokens above it all stay. Those at it share what is missing, the lowest ids first.
    missing = target - _at_least(row_ptr, low + 1, V, BLOCK, MASS)
    tied_before = tl.zeros([], tl.int64)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(row_ptr + i, mask=i < V, other=0.0)
        key = _ordered(x)
        weight = tl.where((i < V) & (key == low), _weight(x, MASS), 0)
        weight_before = tied_before + tl.cumsum(weight, 0) - weight
        tl.store(keep_ptr + row * V + i, (key > low) | ((key == low) & (weight_before < missing)), mask=i < V)
        tied_before += tl.sum(weight, 0)


@triton.jit
def _softmax(logits_ptr, probs_ptr, row_stride, V: tl.constexpr, BLOCK: tl.constexpr):
    """Two passes: the maximum and the sum together (the sum is rescaled whenever the maximum grows), then the quotient.

    Milakov and Gimelshein 2018, "Online normalizer calculation for softmax", arXiv 1805.02867.
    """
    row = tl.program_id(0).to(tl.int64)
    # Each lane keeps its own maximum and sum, and they are joined once. Finite, so that -inf - -inf cannot arise.
    peak, total = tl.full([BLOCK], -3e38, tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * row_stride + i, mask=i < V, other=float("-inf")).to(tl.float32)
        new_peak = tl.maximum(peak, x)
        total = total * tl.exp(peak - new_peak) + tl.exp(x - new_peak)
        peak = new_peak
    highest = tl.max(peak, 0)
    total = tl.sum(total * tl.exp(peak - highest), 0)
    for start in range(0, V, BLOCK):
        i = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + row * row_stride + i, mask=i < V, other=float("-inf")).to(tl.float32)
        tl.store(probs_ptr + row * V + i, tl.exp(x - highest) / total, mask=i < V)


def softmax(logits: Tensor) -> Tensor:
    """The probabilities [R, V] float32 of `logits` [R, V], of any floating dtype; -inf is allowed, a row of it not."""
    _check("logits", logits)
    probs = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    num_rows, vocab_size = logits.shape
    if num_rows:
        _softmax[(num_rows,)](
            logits, probs, logits.stride(0), V=vocab_size, BLOCK=_block(vocab_size), num_warps=NUM_WARPS
        )
    return probs


def top_k_mask(scores: Tensor, counts: Sequence[int]) -> Tensor:
    """The `counts[r]` (1 to V) highest of `scores` [R, V] float32, bool [R, V]; of ties the lowest ids. No NaN."""
    return _keep(scores, torch.tensor(counts, dtype=torch.int64), mass=False)


def top_p_mask(probs: Tensor, top_p: Sequence[float]) -> Tensor:
    """The nucleus, bool [R, V]: the smallest set of the likeliest tokens whose `probs` [R, V] float32 sum to
    `top_p[r]`; of ties the lowest ids."""
    units = torch.tensor(top_p, dtype=torch.float64).mul(MASS_UNITS.value).long()
    return _keep(probs, units.clamp(min=1), mass=True)  # the likeliest token stays, whatever top_p is


def _keep(values: Tensor, targets: Tensor, *, mass: bool) -> Tensor:
    _check("values", values)
    num_rows, vocab_size = values.shape
    if values.dtype != torch.float32 or targets.shape != (num_rows,):
        raise ValueError(
            f"values {tuple(values.shape)} {values.dtype} must be float32 [R, V], with a target for each of its rows, "
            f"not {tuple(targets.shape)}"
        )
    keep = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    if num_rows:
        _truncate[(num_rows,)](
            *(values, targets.to(values.device, non_blocking=True), keep, values.stride(0)),
            V=vocab_size,
            BLOCK=_block(vocab_size),
            MASS=mass,
            num_warps=NUM_WARPS,
        )
    return keep


def _block(vocab_size: int) -> int:
    return min(BLOCK, triton.next_power_of_2(vocab_size))


def _check(name: str, values: Tensor) -> None:
    if values.ndim != 2 or values.shape[1] == 0 or values.stride(1) != 1 or not values.is_floating_point():
        raise ValueError(
            f"{name} {tuple(values.shape)} {values.dtype}, strides {values.stride()}, must be floating [R, V], "
            "V above 0, with its rows whole"
        )

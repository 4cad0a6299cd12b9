"""Split-K: several programs share the columns of a product, and a second kernel adds up their parts.

A matrix product y = x W^T has one program per tile of y. For one token and 4,096 outputs these are 64 programs, and
half of a GPU with 132 multiprocessors has nothing to do. One program per multiprocessor is not enough either: it has
too few loads in flight to use the memory's bandwidth. So the columns are cut into splits, with one program for each
tile and split. Each program writes its sums, and `add_up` reads them again. For one token these are a few hundred
kilobytes, next to megabytes of weights.

In floating point a sum depends on its order. Here the shapes fix the order: no program adds to memory that another
program writes. The result is therefore the same in every run, and a CUDA graph can record the launches.

Source: Osama et al. 2023, "Stream-K", arXiv 2301.03598, section 3 ("fixed-split").
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_SPLITS = 32
BLOCK = 128  # outputs per program of `add_up`


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a launch: tokens, outputs and columns of a tile, compiler options, and programs to aim at."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    programs_per_sm: int


@dataclass(frozen=True, slots=True)
class Splits:
    """The division of a loop over columns: `number` splits of `steps` steps each. The last one may be shorter."""

    number: int
    steps: int


def choose_splits(num_programs: int, num_steps: int, wanted: int) -> Splits:
    """Return splits that make at least `wanted` programs, if there are enough steps for so many.

    `num_programs` is the number of tiles of the result, and `num_steps` the length of the loop over the columns.
    """
    least = triton.cdiv(num_steps, MAX_SPLITS)
    steps = max(min(num_steps * num_programs // wanted, num_steps), least)
    return Splits(triton.cdiv(num_steps, steps), steps)


@lru_cache
def num_sms(device: torch.device) -> int:
    """Return the number of multiprocessors. Without a GPU it is an H100's, so that the choices are the same."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


@triton.jit
def finish(total, token_scale_ptr, row_scale_ptr, bias_ptr, token, n, token_exists, n_exists):
    """Return total * token_scale[token] * row_scale[n] + bias[n] in float32; the pointers may be None."""
    y = total.to(tl.float32)
    if token_scale_ptr is not None:
        y *= tl.load(token_scale_ptr + token, mask=token_exists, other=0.0)
    if row_scale_ptr is not None:
        y *= tl.load(row_scale_ptr + n, mask=n_exists, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        y += tl.load(bias_ptr + n, mask=n_exists, other=0.0).to(tl.float32)
    return y


@triton.jit(do_not_specialize=["num_outputs", "num_splits"])
def _add_up(
    parts_ptr,  # [splits, T, N], float32 or int32
    token_scale_ptr,  # [T] float32, or None
    row_scale_ptr,  # [N], or None
    bias_ptr,  # [N], or None
    out_ptr,  # [T, N]
    num_outputs,  # T * N
    num_splits,
    N: tl.constexpr,
    SPLITS: tl.constexpr,  # the next power of two
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # of T * N
    split = tl.arange(0, SPLITS).to(tl.int64)
    exists = i < num_outputs
    mask = (split < num_splits)[:, None] & exists[None, :]
    parts = tl.load(parts_ptr + split[:, None] * num_outputs + i[None, :], mask=mask, other=0)
    y = finish(tl.sum(parts, 0), token_scale_ptr, row_scale_ptr, bias_ptr, i // N, i % N, exists, exists)
    tl.store(out_ptr + i, y.to(out_ptr.dtype.element_ty), mask=exists)


def add_up(
    parts: Tensor,
    out: Tensor,
    bias: Tensor | None,
    token_scale: Tensor | None = None,
    row_scale: Tensor | None = None,
) -> None:
    """Write the sum of the parts [splits, T, N] to `out` [T, N], times the scales [T] and [N], plus the bias [N].

    The parts are float32 or int32, and the sum of integers is exact. All tensors are contiguous.
    """
    num_splits, _, n = parts.shape
    _add_up[(triton.cdiv(out.numel(), BLOCK),)](
        *(parts, token_scale, row_scale, bias, out, out.numel(), num_splits),
        N=n,
        SPLITS=triton.next_power_of_2(num_splits),
        BLOCK=BLOCK,
        num_warps=4,
    )

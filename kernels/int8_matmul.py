"""Products with a weight in 8 bits: W8A16 (activations in 16 bits) and W8A8 (activations in 8 bits, too).

**W8A16** reads half the bytes of a 16-bit weight and computes in 16 bits. `packed_matmul.py` has the loop; this file
takes the numbers out of their words, two at a time. Shifting a word of four bytes by 8 p leaves bytes p and p + 2 in
the two halves.

An int8 is its lower seven bits minus its sign bit, which counts 128. Put the bits of 1024 in front of both and subtract
the two float16 numbers: (1024 + b & 127) - (1024 + b & 128). For bfloat16 the same is true with 128 in place of 1024.

A float8_e4m3fn has the layout of a float16 with a shorter exponent and mantissa. Moving its bits to the place where
float16 has them gives a number that is 2^8 too small, because the two exponents count from 7 and 15. For bfloat16 it is
2^120, and the numbers below the smallest exponent (subnormal) come out right in both.

**W8A8** uses the tensor cores for integers. They are twice as fast as those for 16 bits, which helps prompts and large
batches. One kernel quantises x: each token gets its own scale. Another multiplies the integers and adds up in int32,
without rounding; at the end each sum is multiplied by the scales of its token and its row. For few tokens the columns
are shared among programs (`split_k.py`), and the parts are integers, too.

The torch definitions are `minillm.ops.int8_matmul`, `fp8_matmul`, `w8a8_matmul` and `quantise_tokens`.
Sources: Kim et al. 2022, arXiv 2211.10017, for the conversion of int8; Dettmers et al. 2022, "LLM.int8()", arXiv
2208.07339, section 2.1, for the product with one scale per row on both sides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm.kernels.packed_matmul import GROUP_OF_TILES, MANY, Format, check, halves, multiply
from minillm.kernels.split_k import Config, add_up, choose_splits, finish, num_sms
from minillm.layer_kv import LARGEST
from minillm.packed import QuantizedWeight

# Keyed by the largest number of tokens, and not timed on a GPU; packed_matmul.py says how they were chosen.
W8A8_CONFIGS = {
    16: Config(block_m=16, block_n=64, block_k=128, num_warps=4, num_stages=4, programs_per_sm=3),
    64: Config(block_m=64, block_n=64, block_k=128, num_warps=4, num_stages=4, programs_per_sm=2),
    MANY: Config(block_m=128, block_n=128, block_k=128, num_warps=8, num_stages=4, programs_per_sm=1),
}
LONGEST_ROW = 32_768  # 64 values per thread of 16 warps
ALIGNMENT = 16  # bytes of the widest load


@triton.jit
def _pairs(words):
    """Return bytes p and p + 2 of each word [N, W] in the lowest bits of two halves, for p = 0, 1: [N, 2 W]."""
    return tl.join(words, words >> 8).reshape(words.shape[0], 2 * words.shape[1])


@triton.jit
def _decode_int8(words, magic, dtype: tl.constexpr):
    """Return the int8 numbers of words [N, W] in the order of their pairs: [N, 4 W]."""
    pairs = _pairs(words)
    return halves((pairs & 0x007F007F) | magic, dtype) - halves((pairs & 0x00800080) | magic, dtype)


@triton.jit
def _decode_fp8(words, magic, dtype: tl.constexpr):
    """Return the float8_e4m3fn numbers of words [N, W] in the order of their pairs: [N, 4 W]."""
    SHIFT: tl.constexpr = 7 if dtype == tl.float16 else 4  # bits of mantissa that e4m3 lacks
    TOO_SMALL: tl.constexpr = 2.0**8 if dtype == tl.float16 else 2.0**120
    pairs = _pairs(words)
    bits = ((pairs & 0x00800080) << 8) | ((pairs & 0x007F007F) << SHIFT)
    return halves(bits, dtype) * TOO_SMALL


INT8 = Format(_decode_int8, per_word=4, magic=(0x64006400, 0x43004300))
FP8 = Format(_decode_fp8, per_word=4)


def int8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight of int8 numbers [out, in] (W8A16).

    The rules of `packed_matmul.multiply` apply. Raises ValueError for other inputs.
    """
    _require(weight, torch.int8, "int8_matmul")
    return multiply(x, weight, bias, INT8)


def fp8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight of float8_e4m3fn numbers [out, in] (W8A16).

    The rules of `packed_matmul.multiply` apply. It needs no hardware for float8. Raises ValueError for other inputs.
    """
    _require(weight, torch.float8_e4m3fn, "fp8_matmul")
    return multiply(x, weight, bias, FP8)


def w8a8_fp8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] with both sides in float8_e4m3fn, in the arithmetic of x's dtype.

    Each token of x [T, in] is rounded to the float8 numbers of its scale, and then multiplied as in `fp8_matmul`. So it
    needs no hardware for float8, and is as fast as W8A16. Raises ValueError for other inputs.
    """
    largest = LARGEST[torch.float8_e4m3fn]
    scale = x.abs().amax(1, keepdim=True).float() / largest
    numbers = (x.float() / scale.where(scale != 0, 1.0)).to(torch.float8_e4m3fn)
    return fp8_matmul((numbers.float() * scale).to(x.dtype), weight, bias)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _quantise(
    x_ptr,  # [T, K], the tokens x_stride apart
    numbers_ptr,  # [T, K] int8, the tokens ROW apart
    scale_ptr,  # [T] float32
    x_stride,
    K: tl.constexpr,
    K_PAD: tl.constexpr,
    ROW: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, K_PAD)
    x = tl.load(x_ptr + token * x_stride + k, mask=k < K, other=0.0).to(tl.float32)
    peak = tl.reduce(tl.abs(x), 0, _larger)  # a NaN stays a NaN, so that it is seen in the result
    # div_rn rounds as torch does. The last bit of `/` can be wrong, and rounding may turn that into a whole unit.
    scale = tl.div_rn(peak, 127.5)
    q = tl.div_rn(x, tl.broadcast_to(tl.where(scale == 0, 1.0, scale), x.shape))
    # Round half to even, as torch.round does: at 1.5 * 2**23 a float32 has no bits for a fraction.
    q = (q + 12582912.0) - 12582912.0
    q = tl.minimum(tl.maximum(q, -128.0), 127.0)
    tl.store(numbers_ptr + token * ROW + k, q.to(tl.int8), mask=k < K)
    tl.store(scale_ptr + token, scale)


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x [T, in] in int8, and one scale per token [T] float32: max |x| / 127.5, with 127.5 cut to 127.

    The rows of the result start at multiples of 16 bytes. Raises ValueError for rows of more than 32,768 numbers.
    """
    num_tokens, size = x.shape
    if size > LONGEST_ROW:
        raise ValueError(
            f"a row of {size} values does not fit into one program's registers: the limit is {LONGEST_ROW} values"
        )
    row = triton.cdiv(size, ALIGNMENT) * ALIGNMENT
    numbers = torch.empty((num_tokens, row), dtype=torch.int8, device=x.device)
    scale = torch.empty(num_tokens, dtype=torch.float32, device=x.device)
    k_pad = triton.next_power_of_2(size)
    if num_tokens:
        _quantise[(num_tokens,)](
            *(x, numbers, scale, x.stride(0)),
            K=size,
            K_PAD=k_pad,
            ROW=row,
            num_warps=min(max(k_pad // 512, 1), 16),
        )
    return numbers[:, :size], scale


@triton.jit(do_not_specialize=["num_tokens", "steps_per_split"])
def _multiply_int8(
    numbers_ptr,  # [T, K] int8, the tokens ROW apart
    token_scale_ptr,  # [T] float32
    weight_ptr,  # [N, K] int8
    row_scale_ptr,  # [N]
    bias_ptr,  # [N], or None
    out_ptr,  # [T, N]; with splits the parts, [splits, T, N] int32
    num_tokens,
    steps_per_split,
    N: tl.constexpr,
    K: tl.constexpr,
    ROW: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_OF_TILES: tl.constexpr,
):
    STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    tile_n, tile_m = tl.program_id(0), tl.program_id(1)
    tile_m, tile_n = tl.swizzle2d(tile_m, tile_n, tl.num_programs(1), tl.num_programs(0), GROUP_OF_TILES)
    n = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    token = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n_exists, token_exists = (n < N)[:, None], (token < num_tokens)[None, :]
    begin = tl.program_id(2) * steps_per_split
    end = tl.minimum(begin + steps_per_split, STEPS)

    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.int32)
    for step in tl.range(begin, end):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        w_mask, x_mask = n_exists, token_exists
        if K % BLOCK_K != 0:
            w_mask &= (k < K)[None, :]
            x_mask &= (k < K)[:, None]
        w = tl.load(weight_ptr + n[:, None] * K + k[None, :], mask=w_mask, other=0)  # [N, K]
        x = tl.load(numbers_ptr + token[None, :] * ROW + k[:, None], mask=x_mask, other=0)  # [K, M]
        acc = tl.dot(w, x, acc, out_dtype=tl.int32)

    out_row = token[None, :]
    if SPLIT:
        out_row += tl.program_id(2).to(tl.int64) * num_tokens
        y = acc
    else:
        y = finish(
            *(acc, token_scale_ptr, row_scale_ptr, bias_ptr, token[None, :], n[:, None]),
            *(token_exists, n_exists),
        )
    tl.store(out_ptr + out_row * N + n[:, None], y.to(out_ptr.dtype.element_ty), mask=n_exists & token_exists)


def w8a8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] with both sides in int8: x [T, in] is quantised here, token by token.

    The weight [out, in] is symmetric with one scale per row. x is float32, float16 or bfloat16, with rows any distance
    apart; scales and bias may have any floating-point dtype. Raises ValueError for other inputs.
    """
    _require(weight, torch.int8, "w8a8_matmul")
    check(x, weight, bias)
    if weight.zero is not None or weight.scale.shape[1] != 1:
        raise ValueError(
            f"the weight has {weight.scale.shape[1]} groups per row and {'no ' if weight.zero is None else ''}zeros: "
            "w8a8_matmul needs a symmetric weight with one scale per row"
        )
    num_tokens, size_out, size_in = x.shape[0], *weight.shape
    out = torch.empty((num_tokens, size_out), dtype=x.dtype, device=x.device)
    if num_tokens == 0:
        return out
    numbers, token_scale = quantise_tokens(x)
    config = next(config for most, config in W8A8_CONFIGS.items() if num_tokens <= most)
    grid = triton.cdiv(size_out, config.block_n), triton.cdiv(num_tokens, config.block_m)
    wanted = config.programs_per_sm * num_sms(x.device)
    splits = choose_splits(grid[0] * grid[1], triton.cdiv(size_in, config.block_k), wanted)

    split = splits.number > 1
    shape = (splits.number, num_tokens, size_out)
    parts = torch.empty(shape, dtype=torch.int32, device=x.device) if split else out
    _multiply_int8[(*grid, splits.number)](
        *(numbers, token_scale, weight.numbers, weight.scale, bias, parts, num_tokens, splits.steps),
        N=size_out,
        K=size_in,
        ROW=numbers.stride(0),
        SPLIT=split,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=config.block_k,
        GROUP_OF_TILES=GROUP_OF_TILES,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if split:
        add_up(parts, out, bias, token_scale, weight.scale)
    return out


def _require(weight: QuantizedWeight, dtype: torch.dtype, name: str) -> None:
    if weight.numbers.dtype != dtype:
        raise ValueError(f"the weight has numbers of {weight.numbers.dtype}: {name} needs {dtype}")

"""The product of activations in floating point and a packed weight: y = x W^T + b, with W in 4 or 8 bits.

A decode step reads every weight once and multiplies it with one or a few tokens, so its time is the time to read the
weights. Packed weights are a half or a quarter of the bytes, if they stay packed until they are in registers: a kernel
that writes the unpacked matrix to memory moves more bytes than before. Here each program owns a tile of outputs and
walks over the columns. Each step loads a tile of packed words, turns them into floating-point numbers in registers, and
multiplies these on the tensor cores.

Pairs. A thread loads 32-bit words with 8 or 4 numbers each. It has little time for each number: an H200's memory
delivers about 40 numbers of 4 bits per clock to a multiprocessor, whose threads together execute 128 instructions in
that clock. So numbers leave a word in pairs, one in each half of 32 bits, and one instruction converts two. With P
pairs in a word, pair p has numbers p and p + P.

Order. The numbers of a word of 4-bit numbers come out in the order 0 4 1 5 2 6 3 7. The order of a sum over columns is
free, so the kernel does not sort them. It reorders the tile of x instead, which is much smaller.

Scales. All numbers of a tile belong to one group. The tensor cores multiply small integers, which float16 and bfloat16
hold exactly, and the scale multiplies the sum of the tile once per output, in float32:

    y[n] = sum over tiles of scale[n, group] * (sum over k in the tile of (q[n, k] - zero[n, group]) x[k])

Sides. The weight is the left operand: y^T = W x^T. The tensor cores of an H100 take 64 rows of the left operand, and
any multiple of 8 columns of the right one. So the few tokens of a decode step go to the right.

Few tokens have few tiles: `split_k.py` shares the columns among more programs.

Sources: Frantar et al. 2024, "MARLIN", arXiv 2408.11743, for weights that are unpacked in registers next to
asynchronous loads; Kim et al. 2022, "Who Says Elephants Can't Run", arXiv 2211.10017, for the conversion of pairs.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm.kernels.split_k import Config, add_up, choose_splits, finish, num_sms
from minillm.packed import QuantizedWeight

MANY = 1 << 30
# Keyed by (bytes of an activation, largest number of tokens). With four stages, the words of two later tiles arrive
# while one is computed. float32 is meant to be exact, not fast. These entries have not been timed on a GPU. They were
# chosen because they compile without spills for sm_80 and sm_90, wait for copies that were issued two tiles earlier,
# and fit at least three programs for a few tokens on a multiprocessor (tests/kernels/test_compiled.py).
CONFIGS = {
    (2, 16): Config(block_m=16, block_n=64, block_k=128, num_warps=4, num_stages=4, programs_per_sm=3),
    (2, 64): Config(block_m=64, block_n=64, block_k=128, num_warps=4, num_stages=4, programs_per_sm=2),
    (2, MANY): Config(block_m=128, block_n=128, block_k=64, num_warps=8, num_stages=4, programs_per_sm=1),
    (4, MANY): Config(block_m=16, block_n=32, block_k=32, num_warps=4, num_stages=1, programs_per_sm=3),
}
# So many tiles of tokens run together on one tile of the weight, and find it in the L2 cache.
GROUP_OF_TILES = 8


@triton.jit
def halves(bits, dtype: tl.constexpr):
    """Return the two 16-bit halves of each word [N, P], low half first, as numbers of `dtype`: [N, 2 P]."""
    low = bits.to(tl.uint16).to(dtype, bitcast=True)
    high = (bits >> 16).to(tl.uint16).to(dtype, bitcast=True)
    return tl.join(low, high).reshape(bits.shape[0], 2 * bits.shape[1])


@triton.jit
def _load_words(words_ptr, row, j, mask, ROW: tl.constexpr):
    """Return words j [1, W] of each row [N, 1]: [N, W] int32. A row of no whole number of words is read by bytes."""
    if words_ptr.dtype.element_ty == tl.int32:
        return tl.load(words_ptr + row * ROW + j, mask=mask, other=0)
    words = tl.zeros(mask.shape, tl.int32)
    for byte in tl.static_range(4):
        i = 4 * j + byte
        one = tl.load(words_ptr + row * ROW + i, mask=mask & (i < ROW), other=0)
        words |= one.to(tl.int32) << (8 * byte)
    return words


@triton.jit(do_not_specialize=["num_tokens", "steps_per_split"])
def _multiply(
    x_ptr,  # [T, K], the tokens x_stride apart
    words_ptr,  # [N, ROW] int32, or bytes
    scale_ptr,  # [N, K / GROUP]
    zero_ptr,  # the same shape, or None
    bias_ptr,  # [N], or None
    out_ptr,  # [T, N]; with splits the parts, [splits, T, N] float32
    num_tokens,
    x_stride,
    steps_per_split,
    magic,
    N: tl.constexpr,
    K: tl.constexpr,
    ROW: tl.constexpr,
    GROUP: tl.constexpr,
    DECODE: tl.constexpr,  # (words, magic, dtype) -> numbers in the order of their pairs, minus CENTRE
    PER_WORD: tl.constexpr,
    CENTRE: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_OF_TILES: tl.constexpr,
):
    WORDS: tl.constexpr = BLOCK_K // PER_WORD
    PAIRS: tl.constexpr = PER_WORD // 2
    GROUPS: tl.constexpr = K // GROUP
    # A group may start inside a word. Its first tile then begins with that word, and x is zero before the group.
    WHOLE: tl.constexpr = GROUP % BLOCK_K == 0
    LEAD: tl.constexpr = 0 if GROUP % PER_WORD == 0 else PER_WORD - 1
    TILES: tl.constexpr = (GROUP + LEAD + BLOCK_K - 1) // BLOCK_K  # of a group
    FLOAT: tl.constexpr = tl.bfloat16 if x_ptr.dtype.element_ty == tl.bfloat16 else tl.float16

    tile_n, tile_m = tl.program_id(0), tl.program_id(1)
    tile_m, tile_n = tl.swizzle2d(tile_m, tile_n, tl.num_programs(1), tl.num_programs(0), GROUP_OF_TILES)
    n = (tile_n * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    token = (tile_m * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    n_exists, token_exists = n < N, token < num_tokens
    begin = tl.program_id(2) * steps_per_split
    end = tl.minimum(begin + steps_per_split, GROUPS * TILES)

    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    # Scales and zeros of 2 bytes are too small for asynchronous copies, so each is loaded one tile early.
    next_scale = tl.load(scale_ptr + n * GROUPS + begin // TILES, mask=n_exists, other=0.0)
    if zero_ptr is not None:
        next_zero = tl.load(zero_ptr + n * GROUPS + begin // TILES, mask=n_exists, other=0.0)
    for step in tl.range(begin, end):
        start = step // TILES * GROUP
        first = start // PER_WORD * PER_WORD + step % TILES * BLOCK_K
        scale = next_scale
        next_group = tl.minimum((step + 1) // TILES, GROUPS - 1)
        next_scale = tl.load(scale_ptr + n * GROUPS + next_group, mask=n_exists, other=0.0)
        if zero_ptr is not None:
            zero = next_zero
            next_zero = tl.load(zero_ptr + n * GROUPS + next_group, mask=n_exists, other=0.0)

        k = first + tl.arange(0, BLOCK_K)
        j = first // PER_WORD + tl.arange(0, WORDS)
        x_mask, word_mask = token_exists[None, :], n_exists[:, None]
        if not WHOLE:
            x_mask &= ((k >= start) & (k < start + GROUP))[:, None]
            word_mask &= (j * PER_WORD < K)[None, :]
        words = _load_words(words_ptr, n[:, None], j[None, :], word_mask, ROW)  # [N, W]
        x = tl.load(x_ptr + token[None, :] * x_stride + k[:, None], mask=x_mask, other=0.0)  # [K, M]
        paired = x.reshape(WORDS, 2, PAIRS, BLOCK_M).permute(0, 2, 1, 3).reshape(BLOCK_K, BLOCK_M)
        q = DECODE(words, magic, FLOAT).to(x.dtype)  # [N, K]
        if zero_ptr is not None:
            q -= (zero.to(tl.float32) - CENTRE).to(x.dtype)[:, None]
        part = tl.dot(q, paired, input_precision="ieee")  # [N, M]
        acc += part * scale.to(tl.float32)[:, None]

    exists = n_exists[:, None] & token_exists[None, :]
    out_row = token[None, :]
    if SPLIT:
        out_row += tl.program_id(2).to(tl.int64) * num_tokens
    else:
        acc = finish(
            acc, None, None, bias_ptr, token[None, :], n[:, None], token_exists[None, :], n_exists[:, None]
        )
    tl.store(out_ptr + out_row * N + n[:, None], acc.to(out_ptr.dtype.element_ty), mask=exists)


@dataclass(frozen=True, slots=True)
class Format:
    """A way to pack numbers into words: `decode` takes out `per_word` numbers from each, minus `centre`.

    `magic` is the argument that `decode` needs for float16, and for bfloat16. It is a constant, but the kernel gets it
    as an argument: a LOP3 instruction has room for one constant, and then takes the second one from a register.
    """

    decode: Any
    per_word: int
    centre: int = 0
    magic: tuple[int, int] = (0, 0)


def multiply(x: Tensor, weight: QuantizedWeight, bias: Tensor | None, form: Format) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a packed weight: a new, contiguous tensor of x's dtype.

    x is float32, float16 or bfloat16, with rows any distance apart. Scales, zeros and bias may have any floating-point
    dtype. Sums are in float32. Raises ValueError for other inputs.
    """
    check(x, weight, bias)
    num_tokens, size_out, size_in = x.shape[0], *weight.shape
    out = torch.empty((num_tokens, size_out), dtype=x.dtype, device=x.device)
    if num_tokens == 0:
        return out
    config = next(c for (size, most), c in CONFIGS.items() if size == x.itemsize and num_tokens <= most)
    block_k = min(config.block_k, max(triton.next_power_of_2(weight.group_size), 16))
    lead = 0 if weight.group_size % form.per_word == 0 else form.per_word - 1
    num_steps = weight.scale.shape[1] * triton.cdiv(weight.group_size + lead, block_k)
    grid = triton.cdiv(size_out, config.block_n), triton.cdiv(num_tokens, config.block_m)
    wanted = config.programs_per_sm * num_sms(x.device)
    splits = choose_splits(grid[0] * grid[1], num_steps, wanted)

    split = splits.number > 1
    parts = torch.empty((splits.number, *out.shape), device=x.device) if split else out
    words = _as_words(weight.numbers)
    _multiply[(*grid, splits.number)](
        *(x, words, weight.scale, weight.zero, bias, parts),
        *(num_tokens, x.stride(0), splits.steps, form.magic[x.dtype == torch.bfloat16]),
        N=size_out,
        K=size_in,
        ROW=words.shape[1],
        GROUP=weight.group_size,
        DECODE=form.decode,
        PER_WORD=form.per_word,
        CENTRE=form.centre,
        SPLIT=split,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        BLOCK_K=block_k,
        GROUP_OF_TILES=GROUP_OF_TILES,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if split:
        add_up(parts, out, bias)
    return out


def _as_words(numbers: Tensor) -> Tensor:
    """Return the same memory as 32-bit words, or as bytes if a row is not a whole number of aligned words."""
    whole = numbers.shape[1] % 4 == 0 and numbers.storage_offset() % 4 == 0
    return numbers.view(torch.int32 if whole else torch.uint8)


def check(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> None:
    """Raise ValueError for inputs that a kernel would read wrongly. Nothing here waits for the device."""
    size_out, size_in = weight.shape
    if x.ndim != 2 or x.shape[1] != size_in or x.stride(1) != 1:
        raise ValueError(
            f"x is {tuple(x.shape)} with strides {x.stride()}: a weight {[size_out, size_in]} needs [T, {size_in}] "
            "with contiguous rows"
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"x is {x.dtype}: it must be float32, float16 or bfloat16")
    for name in ("numbers", "scale", "zero"):
        tensor = getattr(weight, name)
        if tensor is not None and not tensor.is_contiguous():
            raise ValueError(f"weight.{name} has strides {tensor.stride()}: it must be contiguous")
    if bias is not None and (bias.shape != (size_out,) or bias.stride() != (1,)):
        raise ValueError(f"bias is {tuple(bias.shape)}: it must be contiguous [{size_out}]")

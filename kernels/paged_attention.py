"""Attention over a paged KV cache: one kernel for prefill chunks, decode and any mixture of them.

The cache is a pool of blocks. A request's block table lists the blocks that hold its tokens, in order. Position j of
the request is in slot `table[j // block_size] * block_size + j % block_size`. Paging therefore adds one table lookup
before each load and nothing else (Kwon et al. 2023, "Efficient Memory Management for Large Language Model Serving
with PagedAttention", section 4.3). The size of a tile of keys is independent of the size of a block, because each key
of a tile looks up its own slot.

Three ideas make this kernel fast in both phases:

Packing. All query heads that share a KV head read the same keys, so one program serves them together. Row m of its
query tile is token `m // group` and head `m % group`. With four query heads per KV head, keys are read a quarter as
often. A tensor core needs at least 16 rows, and packing fills more of them in a decode step with one token per
request.

Ragged rows. Queries are flat over the tokens of all requests, and `query_start` gives each request's first row. The
size of the grid depends on shapes alone and covers the worst case of any split into requests. A program finds its
request by bisection, as in vLLM's unified attention kernel; programs that have no rows return at once.

Split-K. With few queries there are few programs: batch 1 with 8 KV heads would keep 8 of 132 multiprocessors busy.
Flash-Decoding (Dao et al. 2023) cuts the keys of each request into `num_splits` splits and attends to each split
separately. A second kernel joins the parts by their log-sum-exp.

Keys and values may be int8 or fp8, with one float32 scale per slot and KV head. A scale belongs to one key, which is a
column of S = q k^T and of P. So the kernel multiplies the column of S by K's scale and the column of P by V's scale.
The tiles of K and V go to the tensor cores unscaled.

Source of the loop: FlashAttention-2 (Dao 2023, arXiv 2307.08691), algorithm 1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from minillm.batch import Batch
from minillm.layer_kv import LARGEST, LayerKV

ANY = 2**31  # more rows than a request can need
LOG2_E = math.log2(math.e)  # exp2 is one instruction, exp is two


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a launch: rows of the query tile, keys per step of the loop, and compiler options."""

    block_m: int
    tile: int
    num_warps: int
    num_stages: int


# Keyed by (rows of the query tile that a request needs at most, bytes per element, largest head_dim). A request needs a
# row for each query head of a KV head and each of its tokens: 4 rows for one token of 4 heads, 20 if it verifies 4
# drafts. A tile of 128 rows would be nearly empty then. Three stages: while one tile is computed, the keys and values
# of the next tile arrive, and so do the block numbers of the tile after it. float32 is meant to be exact, not fast:
# under IEEE rules it cannot use tensor cores. These entries have not been timed on a GPU. They were chosen because they
# compile without spills and with wide asynchronous loads for sm_80 and sm_90 (tests/kernels/test_compiled.py). Three
# alternatives compile to worse code. Two warps for decode fit no more programs on a multiprocessor than four. Two
# stages do not fetch the block numbers ahead. 64 rows with 4 warps for prefill spill on sm_80, and would read every key
# twice as often.
CONFIGS = {
    (16, 2, 128): Config(block_m=16, tile=64, num_warps=4, num_stages=3),
    (16, 2, 256): Config(block_m=16, tile=32, num_warps=4, num_stages=3),
    (32, 2, 128): Config(block_m=32, tile=64, num_warps=4, num_stages=3),
    (32, 2, 256): Config(block_m=32, tile=32, num_warps=4, num_stages=3),
    (ANY, 2, 128): Config(block_m=128, tile=64, num_warps=8, num_stages=3),
    (ANY, 2, 256): Config(block_m=64, tile=32, num_warps=8, num_stages=3),
    (16, 4, 128): Config(block_m=16, tile=32, num_warps=4, num_stages=1),
    (16, 4, 256): Config(block_m=16, tile=16, num_warps=4, num_stages=1),
    (32, 4, 128): Config(block_m=32, tile=32, num_warps=8, num_stages=1),
    (32, 4, 256): Config(block_m=16, tile=32, num_warps=8, num_stages=1),
    (ANY, 4, 128): Config(block_m=32, tile=32, num_warps=8, num_stages=1),
    (ANY, 4, 256): Config(block_m=16, tile=32, num_warps=8, num_stages=1),
}
PROGRAMS_PER_SM = 4  # the number of decode programs that fit at once, with head_dim 128
MAX_SPLITS = 64
LEAST_KEYS_PER_SPLIT = 256


@triton.jit
def _find_request(query_start_ptr, num_requests, q_block, BLOCK_Q: tl.constexpr):
    """Return the request of Q-block `q_block`: the last request whose first Q-block is not beyond `q_block`.

    The Q-blocks of request r begin at `query_start[r] // BLOCK_Q + r`. This gives each request at least as many as it
    needs, for any lengths of the requests before it, and without a sum over those lengths.
    """
    low, high = 0, num_requests
    while low < high:
        middle = (low + high) // 2
        if tl.load(query_start_ptr + middle) // BLOCK_Q + middle <= q_block:
            low = middle + 1
        else:
            high = middle
    return low - 1


@triton.jit(do_not_specialize=["num_requests", "table_width"])
def _attend(
    q_ptr,  # [T, H, D], the tokens q_stride apart
    k_ptr,  # [slots, H_KV, D]: the blocks laid end to end
    v_ptr,
    k_scale_ptr,  # [slots, H_KV] float32 if the cache is quantised
    v_scale_ptr,
    out_ptr,  # [T, H, D]; with splits the parts, [T, H, SPLITS, D] float32
    lse_ptr,  # with splits the parts' log2-sum-exp2, [T, H, SPLITS]
    query_start_ptr,  # [R + 1]
    seq_lens_ptr,  # [R]
    tables_ptr,  # [R, table_width]
    q_stride,
    num_requests,
    table_width,
    score_scale,  # scale * log2(e)
    H_KV: tl.constexpr,
    GROUP: tl.constexpr,  # query heads per KV head
    D: tl.constexpr,
    D_PAD: tl.constexpr,  # the next power of two, at least 16
    BLOCK_SIZE: tl.constexpr,
    WINDOW: tl.constexpr,  # 0: none
    QUANTISED: tl.constexpr,
    DECODE: tl.constexpr,  # every request has one token: Q-block and request are the same
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TILE: tl.constexpr,
):
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP  # tokens per Q-block
    q_block, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if DECODE:
        request, block_start = q_block, 0
        query_start = tl.load(query_start_ptr + request)
    else:
        request = _find_request(query_start_ptr, num_requests, q_block, BLOCK_Q)
        query_start = tl.load(query_start_ptr + request)
        block_start = (q_block - query_start // BLOCK_Q - request) * BLOCK_Q
    num_queries = tl.load(query_start_ptr + request + 1) - query_start
    if block_start >= num_queries:
        return
    seq_len = tl.load(seq_lens_ptr + request)

    # Rows are token-major: the heads of a token are adjacent. If GROUP does not divide BLOCK_M, the last few rows are
    # unused, because their token belongs to the next Q-block.
    m = tl.arange(0, BLOCK_M)
    token = block_start + m // GROUP  # [M], within the request
    row_exists = (m // GROUP < BLOCK_Q) & (token < num_queries)
    position = seq_len - num_queries + token  # the last query has the last key's position
    d = tl.arange(0, D_PAD)
    d_exists = d < D
    token_row = (query_start + token).to(tl.int64)  # [M], within the batch
    head = kv_head * GROUP + m % GROUP
    q_offset = (token_row * q_stride + head * D)[:, None] + d[None, :]
    q = tl.load(q_ptr + q_offset, mask=row_exists[:, None] & d_exists[None, :], other=0.0)  # [M, D]

    # The keys that any row of this Q-block can see, then this split's part of them.
    last = tl.minimum(block_start + BLOCK_Q, num_queries) - 1
    end = seq_len - num_queries + last + 1
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(seq_len - num_queries + block_start - WINDOW + 1, 0) // TILE * TILE
    if SPLITS > 1:
        stretch = tl.cdiv(tl.cdiv(end - begin, TILE), SPLITS) * TILE
        begin += split * stretch
        end = tl.minimum(begin + stretch, end)

    # The largest score so far starts finite. A row that sees no key of a tile then gets weights exp2(-inf) = 0;
    # -inf - -inf would be NaN.
    peak = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    for start in tl.range(begin, end, TILE):
        key = start + tl.arange(0, TILE)  # [N]
        # Nothing is read beyond the last visible key: table columns and slots there are undefined.
        key_exists = key < end
        block = tl.load(tables_ptr + request * table_width + key // BLOCK_SIZE, mask=key_exists, other=0)
        slot_head = (block.to(tl.int64) * BLOCK_SIZE + key % BLOCK_SIZE) * H_KV + kv_head  # [N]
        k = tl.load(
            k_ptr + slot_head[None, :] * D + d[:, None],
            mask=key_exists[None, :] & d_exists[:, None],
            other=0.0,
        )  # [D, N]
        s = tl.dot(q, k.to(q.dtype), input_precision="ieee") * score_scale  # [M, N]
        if QUANTISED:
            s *= tl.load(k_scale_ptr + slot_head, mask=key_exists, other=0.0)[None, :]
        visible = key_exists[None, :] & (key[None, :] <= position[:, None])
        if WINDOW > 0:
            visible &= key[None, :] > position[:, None] - WINDOW
        s = tl.where(visible, s, float("-inf"))

        new_peak = tl.maximum(peak, tl.max(s, 1))
        shrink = tl.exp2(peak - new_peak)
        p = tl.exp2(s - new_peak[:, None])  # [M, N]
        peak = new_peak
        total = total * shrink + tl.sum(p, 1)
        if QUANTISED:  # after the row sum, because the scale belongs to V and not to the weight
            p *= tl.load(v_scale_ptr + slot_head, mask=key_exists, other=0.0)[None, :]
        v = tl.load(
            v_ptr + slot_head[:, None] * D + d[None, :],
            mask=key_exists[:, None] & d_exists[None, :],
            other=0.0,
        )  # [N, D]
        acc = tl.dot(p.to(q.dtype), v.to(q.dtype), acc * shrink[:, None], input_precision="ieee")

    # A row has no keys if it is padding of a CUDA graph (its result is 0) or if the split is beyond the request's end.
    some = total > 0
    total = tl.where(some, total, 1.0)
    acc /= total[:, None]
    out_row = token_row * (H_KV * GROUP) + head  # [M]
    if SPLITS > 1:
        out_row = out_row * SPLITS + split
        tl.store(lse_ptr + out_row, tl.where(some, peak + tl.log2(total), float("-inf")), mask=row_exists)
        row_exists &= some
    out_offset = out_row[:, None] * D + d[None, :]
    mask = row_exists[:, None] & d_exists[None, :]
    tl.store(out_ptr + out_offset, acc.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _join(
    parts_ptr,  # [T, H, SPLITS, D] float32; a part without keys was never written
    lse_ptr,  # [T, H, SPLITS], -inf for those
    out_ptr,  # [T, H, D]
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """Combine the splits' results into the attention over all keys, each weighted by its share of the sum."""
    row = tl.program_id(0).to(tl.int64)  # of T * H
    split, d = tl.arange(0, SPLITS), tl.arange(0, D_PAD)
    lse = tl.load(lse_ptr + row * SPLITS + split)
    weight = tl.exp2(lse - tl.maximum(tl.max(lse, 0), -1e30))  # [SPLITS]
    mask = (weight > 0)[:, None] & (d < D)[None, :]
    parts = tl.load(parts_ptr + (row * SPLITS + split)[:, None] * D + d[None, :], mask=mask, other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(parts * weight[:, None], 0) / tl.where(total == 0, 1.0, total)  # [D]
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty), mask=d < D)


def choose_config(num_tokens: int, group: int, head_dim: int, dtype: torch.dtype) -> Config:
    """Return the table's entry for requests of `num_tokens` tokens, with `group` query heads per KV head.

    Its query tile is larger if one token has more heads than rows.
    """
    rows = next(rows for rows in (16, 32, ANY) if num_tokens * group <= rows)
    config = CONFIGS[rows, dtype.itemsize, 128 if head_dim <= 128 else 256]
    rows = max(config.block_m, triton.next_power_of_2(group))
    return Config(rows, config.tile, config.num_warps, config.num_stages)


def choose_splits(num_programs: int, max_keys: int, num_sms: int) -> int:
    """Return the number of splits of the keys: a power of two, and 1 if the programs fill the GPU without splits.

    `max_keys` is the number of keys that the block tables have room for. The number of splits depends on shapes and
    never on lengths on the device, so a CUDA graph can replay the launch. The kernel computes the size of a split from
    the actual lengths.
    """
    wanted = min(PROGRAMS_PER_SM * num_sms // num_programs, max_keys // LEAST_KEYS_PER_SPLIT, MAX_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


@lru_cache
def _num_sms(device: torch.device) -> int:
    # The interpreter has no multiprocessors: take an A100's number, so that it makes the same choices.
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 108


def paged_attention(
    q: Tensor,
    kv: LayerKV,
    batch: Batch,
    window: int | None,
    *,
    scale: float | None = None,
    num_splits: int | None = None,
) -> Tensor:
    """Return the causal attention of each request's new tokens over all its tokens in the cache: [T, H, D] like q.

    q [T, H, D] is float32, float16 or bfloat16. Its tokens may be any distance apart, but the heads of a token must be
    adjacent. The tensors of `kv` are contiguous. K and V have q's dtype or, with scales, int8 or (on sm_89 and newer)
    float8_e4m3fn. The kernel reads query_start, seq_lens and block_tables of `batch`, and only on the device. Every
    request has at least one token. If its seq_lens is 0 (a padding row of a CUDA graph), nothing is read and the row
    is 0. A query sees the last `window` keys up to and including its own, or all of them if `window` is None. `scale`
    defaults to 1 / sqrt(D), and `num_splits` (a power of two) to the result of `choose_splits`. Raises ValueError for
    other inputs.
    """
    _check(q, kv, batch, window, num_splits)
    num_tokens, num_heads, head_dim = q.shape
    _, block_size, num_kv_heads, _ = kv.k.shape
    num_requests, table_width = batch.block_tables.shape
    group, decode = num_heads // num_kv_heads, num_tokens == num_requests
    # The mean, because the lengths are on the device. A longer request takes several tiles.
    config = choose_config(-(-num_tokens // num_requests), group, head_dim, q.dtype)
    q_blocks = num_requests if decode else num_tokens // (config.block_m // group) + num_requests
    if num_splits is None:
        num_splits = choose_splits(q_blocks * num_kv_heads, table_width * block_size, _num_sms(q.device))

    d_pad = max(16, triton.next_power_of_2(head_dim))
    out = torch.empty((num_tokens, num_heads, head_dim), dtype=q.dtype, device=q.device)
    parts, lse = out, out  # without splits the kernel writes the result itself, and no lse
    if num_splits > 1:
        parts = torch.empty((num_tokens, num_heads, num_splits, head_dim), device=q.device)
        lse = torch.empty((num_tokens, num_heads, num_splits), device=q.device)
    _attend[(q_blocks, num_kv_heads, num_splits)](
        *(q, *kv, parts, lse),
        *(batch.query_start, batch.seq_lens, batch.block_tables),
        *(q.stride(0), num_requests, table_width),
        LOG2_E * (head_dim**-0.5 if scale is None else scale),
        H_KV=num_kv_heads,
        GROUP=group,
        D=head_dim,
        D_PAD=d_pad,
        BLOCK_SIZE=block_size,
        WINDOW=window or 0,
        QUANTISED=kv.k_scale is not None,
        DECODE=decode,
        SPLITS=num_splits,
        BLOCK_M=config.block_m,
        TILE=config.tile,
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
    if num_splits > 1:
        _join[(num_tokens * num_heads,)](
            parts, lse, out, D=head_dim, D_PAD=d_pad, SPLITS=num_splits, num_warps=4
        )
    return out


def _check(q: Tensor, kv: LayerKV, batch: Batch, window: int | None, num_splits: int | None) -> None:
    """Raise ValueError for inputs that the kernel would read wrongly. Nothing here waits for the device."""
    kv.check()
    if q.ndim != 3:
        raise ValueError(f"q {tuple(q.shape)} must be [T, H, D]")
    head_dim = q.shape[2]
    if kv.k.shape[3] != head_dim or q.shape[1] % kv.k.shape[2] or head_dim > 256:
        raise ValueError(
            f"q {tuple(q.shape)} does not fit the cache {tuple(kv.k.shape)}: head_dim must be the same, at most "
            "256, and the number of heads a multiple of the cache's"
        )
    if q.dtype not in (torch.float32, torch.float16, torch.bfloat16) or q.stride()[1:] != (head_dim, 1):
        raise ValueError(
            f"q is {q.dtype} with strides {q.stride()}: it must be float32, float16 or bfloat16, and the heads of a "
            "token adjacent (q.contiguous())"
        )
    if kv.k.dtype not in (q.dtype, *LARGEST):
        raise ValueError(f"the cache is {kv.k.dtype}: it must be {q.dtype} like q, int8 or float8_e4m3fn")
    num_requests = batch.seq_lens.shape[0]
    if batch.query_start.shape != (num_requests + 1,) or batch.block_tables.shape[0] != num_requests:
        raise ValueError(
            f"{num_requests} seq_lens need {num_requests + 1} entries in query_start, not "
            f"{tuple(batch.query_start.shape)}, and as many block_tables, not {tuple(batch.block_tables.shape)}"
        )
    for name in ("query_start", "seq_lens", "block_tables"):
        tensor = getattr(batch, name)
        if tensor.dtype != torch.int32 or not tensor.is_contiguous():
            raise ValueError(
                f"batch.{name} is {tensor.dtype}, strides {tensor.stride()}: need contiguous int32"
            )
    if window is not None and window < 1:
        raise ValueError(f"window is {window}: it must be at least 1, or None for no window")
    if num_splits is not None and (not 1 <= num_splits <= MAX_SPLITS or num_splits & (num_splits - 1)):
        raise ValueError(f"num_splits is {num_splits}: it must be a power of two from 1 to {MAX_SPLITS}")

"""Attention over a paged KV cache: one kernel for prefill chunks, decode and any mixture of them.

The cache is a heap of blocks, and a request's block table says which of them hold its tokens, in order. Position j of
the request lives in slot `table[j // block_size] * block_size + j % block_size`, so the only thing that paging adds to
attention is one look into the table before each load (Kwon et al. 2023, "Efficient Memory Management for Large
Language Model Serving with PagedAttention", section 4.3). The tile of keys that a program takes at a time has nothing
to do with the size of a block: each key of the tile looks up its own slot.

Three ideas make the one kernel fast for both phases:

Packing. All query heads that share a KV head read the same keys, so one program serves them together: row m of its
query tile is token `m // group` and head `m % group`. Four heads a KV head means a quarter of the reads, and a decode
step with one token a request still fills the 16 rows that a tensor core wants at least.

Ragged rows. Queries are flat over the tokens of all requests, and `query_start` says where each one's begin. The grid
is laid out for the worst case of any such split, which is a matter of shapes alone; a program finds its request by
bisection (vLLM's unified attention kernel does the same), and those too many leave at once.

Split-K. With few queries there are few programs: batch 1 with 8 KV heads would keep 8 of 132 multiprocessors busy.
Flash-Decoding (Dao et al. 2023) cuts the keys of each request into `num_splits` stretches, attends to each on its own,
and joins the parts by their log-sum-exp in a second kernel.

Keys and values may be int8 or fp8 with one float32 scale for each slot and KV head. A scale belongs to a key, which is
a column of S = q k^T and of P, and a row of V; so it is taken to the column of S (for K) and of P (for V), and the
tiles themselves go to the tensor cores as they are.

Source of the loop itself: FlashAttention-2 (Dao 2023, arXiv 2307.08691), algorithm 1.
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

LOG2_E = math.log2(math.e)  # exp2 is one instruction, exp is two


@dataclass(frozen=True, slots=True)
class Config:
    """How a launch is cut up: rows of the query tile, keys a step, and what the compiler is told."""

    block_m: int
    tile: int
    num_warps: int
    num_stages: int


# Keyed by (every request decodes one token, the element's bytes, head_dim up to). Three stages: while one tile is
# computed on, the next one's keys and values arrive, and the block numbers of the one after that. float32 has no tensor
# cores under IEEE rules and is there to be right, not fast. No GPU has timed these yet: they are the ones that compile
# to no spills and wide asynchronous loads for sm_80 and sm_90 (tests/kernels/test_compiled.py). Of what was
# compared so: two warps for decode fit no more programs on a multiprocessor than four; two stages do not fetch the
# block numbers ahead; 64 rows with 4 warps for prefill spill on sm_80, and would read every key twice as often.
CONFIGS = {
    (True, 2, 128): Config(block_m=16, tile=64, num_warps=4, num_stages=3),
    (True, 2, 256): Config(block_m=16, tile=32, num_warps=4, num_stages=3),
    (False, 2, 128): Config(block_m=128, tile=64, num_warps=8, num_stages=3),
    (False, 2, 256): Config(block_m=64, tile=32, num_warps=8, num_stages=3),
    (True, 4, 128): Config(block_m=16, tile=32, num_warps=4, num_stages=1),
    (True, 4, 256): Config(block_m=16, tile=16, num_warps=4, num_stages=1),
    (False, 4, 128): Config(block_m=32, tile=32, num_warps=8, num_stages=1),
    (False, 4, 256): Config(block_m=16, tile=32, num_warps=8, num_stages=1),
}
PROGRAMS_PER_SM = 4  # as many of decode's as fit at once, with head_dim 128
MAX_SPLITS = 64
LEAST_KEYS_PER_SPLIT = 256


@triton.jit
def _find_request(query_start_ptr, num_requests, q_block, BLOCK_Q: tl.constexpr):
    """The request that Q-block `q_block` belongs to: the last whose first block is not beyond it.

    Request r is given the blocks from `query_start[r] // BLOCK_Q + r` on. That is at least as many as it needs,
    whatever the requests before it look like, and nothing had to be summed up to know it.
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
    k_scale_ptr,  # [slots, H_KV] float32 where the cache is quantised
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
    GROUP: tl.constexpr,  # query heads a KV head
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
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP  # tokens a Q-block
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

    # Rows: token-major, the heads of a token side by side. Where GROUP does not divide BLOCK_M a few rows are left,
    # whose token is the next Q-block's.
    m = tl.arange(0, BLOCK_M)
    token = block_start + m // GROUP  # [M], within the request
    row_exists = (m // GROUP < BLOCK_Q) & (token < num_queries)
    position = seq_len - num_queries + token  # the last query stands at the last key
    d = tl.arange(0, D_PAD)
    d_exists = d < D
    token_row = (query_start + token).to(tl.int64)  # [M], within the batch
    head = kv_head * GROUP + m % GROUP
    q_offset = (token_row * q_stride + head * D)[:, None] + d[None, :]
    q = tl.load(q_ptr + q_offset, mask=row_exists[:, None] & d_exists[None, :], other=0.0)  # [M, D]

    # Keys that any row of this block can see, and of those the stretch that is this split's.
    last = tl.minimum(block_start + BLOCK_Q, num_queries) - 1
    end = seq_len - num_queries + last + 1
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(seq_len - num_queries + block_start - WINDOW + 1, 0) // TILE * TILE
    if SPLITS > 1:
        stretch = tl.cdiv(tl.cdiv(end - begin, TILE), SPLITS) * TILE
        begin += split * stretch
        end = tl.minimum(begin + stretch, end)

    # The largest score so far starts finite: a row that sees nothing of a tile then weighs it with exp2(-inf) = 0,
    # where -inf - -inf would be NaN.
    peak = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    for start in tl.range(begin, end, TILE):
        key = start + tl.arange(0, TILE)  # [N]
        # Nothing is read beyond the last visible key: table columns and slots there hold what they please.
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
        if QUANTISED:  # after the row sum: the scale is V's, not the weight's
            p *= tl.load(v_scale_ptr + slot_head, mask=key_exists, other=0.0)[None, :]
        v = tl.load(
            v_ptr + slot_head[:, None] * D + d[None, :],
            mask=key_exists[:, None] & d_exists[None, :],
            other=0.0,
        )  # [N, D]
        acc = tl.dot(p.to(q.dtype), v.to(q.dtype), acc * shrink[:, None], input_precision="ieee")

    # No keys at all: a padding row of a CUDA graph, whose result is 0, or a split beyond a short request's end.
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
    """The softmax over all keys from the softmax over each stretch: the parts weighed by their share of the sum."""
    row = tl.program_id(0).to(tl.int64)  # of T * H
    split, d = tl.arange(0, SPLITS), tl.arange(0, D_PAD)
    lse = tl.load(lse_ptr + row * SPLITS + split)
    weight = tl.exp2(lse - tl.maximum(tl.max(lse, 0), -1e30))  # [SPLITS]
    mask = (weight > 0)[:, None] & (d < D)[None, :]
    parts = tl.load(parts_ptr + (row * SPLITS + split)[:, None] * D + d[None, :], mask=mask, other=0.0)
    total = tl.sum(weight, 0)
    out = tl.sum(parts * weight[:, None], 0) / tl.where(total == 0, 1.0, total)  # [D]
    tl.store(out_ptr + row * D + d, out.to(out_ptr.dtype.element_ty), mask=d < D)


def choose_config(group: int, head_dim: int, dtype: torch.dtype, *, decode: bool) -> Config:
    """The table's entry for this shape, its query tile widened where one token has more heads than it has rows."""
    config = CONFIGS[decode, dtype.itemsize, 128 if head_dim <= 128 else 256]
    rows = max(config.block_m, triton.next_power_of_2(group))
    return Config(rows, config.tile, config.num_warps, config.num_stages)


def choose_splits(num_programs: int, max_keys: int, num_sms: int) -> int:
    """How many stretches to cut the keys into: a power of two, 1 where the programs fill the GPU without it.

    `max_keys` is what the block tables have room for. Only shapes decide, never a length on the device, so a CUDA
    graph replays what was captured; the stretches themselves follow the lengths that the kernel finds.
    """
    wanted = min(PROGRAMS_PER_SM * num_sms // num_programs, max_keys // LEAST_KEYS_PER_SPLIT, MAX_SPLITS)
    return 1 << max(wanted, 1).bit_length() - 1


@lru_cache
def _num_sms(device: torch.device) -> int:
    # The interpreter has no multiprocessors; an A100's number lets it take the same decisions.
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

    q [T, H, D] is float32, float16 or bfloat16, its tokens any distance apart and each token's heads adjacent. The
    tensors of `kv` are contiguous; K and V have q's dtype or, with scales, int8 or (on sm_89 and newer) float8_e4m3fn.
    Of `batch` the tensors query_start, seq_lens and block_tables are read, on the device only. Every request has at
    least one token; if its seq_lens is 0 (a padding row of a CUDA graph) nothing is read and the row is 0. A query
    sees the `window` last keys, its own included, or all with None. `scale` is 1 / sqrt(D) unless given, `num_splits`
    (a power of two) is from `choose_splits`. Raises ValueError for anything else.
    """
    _check(q, kv, batch, window, num_splits)
    num_tokens, num_heads, head_dim = q.shape
    _, block_size, num_kv_heads, _ = kv.k.shape
    num_requests, table_width = batch.block_tables.shape
    group, decode = num_heads // num_kv_heads, num_tokens == num_requests
    config = choose_config(group, head_dim, q.dtype, decode=decode)
    q_blocks = num_requests if decode else num_tokens // (config.block_m // group) + num_requests
    if num_splits is None:
        num_splits = choose_splits(q_blocks * num_kv_heads, table_width * block_size, _num_sms(q.device))

    d_pad = max(16, triton.next_power_of_2(head_dim))
    out = torch.empty((num_tokens, num_heads, head_dim), dtype=q.dtype, device=q.device)
    parts, lse = out, out  # unsplit, the kernel writes the result itself, and no lse
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
    """Refuse what the kernel would read wrongly. Shapes only: nothing here waits for the device."""
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

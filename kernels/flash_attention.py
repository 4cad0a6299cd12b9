"""FlashAttention: exact attention that never writes the matrix of scores to memory.

    out = softmax(scale q k^T) v            q [S_q, D], k and v [S_k, D], for each head of each sequence

The direct implementation stores the scores S = q k^T and the weights P = softmax(S), both [S_q, S_k]. It writes them
to the GPU's memory and reads them back. For long sequences this traffic, not arithmetic, takes most of the time.
Here each program takes one tile of queries and walks over the tiles of keys. It keeps one tile [BLOCK_M, BLOCK_N] of
scores on the chip and uses it at once, so only q, k, v and out move through memory.

The difficulty is softmax: a weight needs the maximum and the sum of its whole row, but the walk has seen only a part
of the row. The online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867) keeps three values for each row:

    m    the largest score so far
    l    sum of exp(s - m) over the scores so far
    acc  sum of exp(s - m) v over the keys so far

When a tile raises the maximum to m', the kernel multiplies l and acc by exp(m - m'). Both sums are then relative to
m', as if m' had been known from the start. At the end out = acc / l, which is exact and not an approximation.

The backward pass needs P again. The forward pass keeps only one number per row, the log-sum-exp lse = m + log(l).
The backward pass computes S again from q and k, and a tile of P is exp(S - lse). By the chain rule, for a given dO:

    dV = P^T dO      dP = dO V^T      dS = P * (dP - delta)      dQ = scale dS K      dK = scale dS^T Q

Here delta = rowsum(P * dP) is the term that softmax's normalisation adds. It equals rowsum(dO * out), so it is also
one number per row. One kernel owns a tile of queries and sums dQ over keys. Another kernel owns a tile of keys and
sums dK and dV over queries. Each kernel computes P once, and no program adds to memory that another program writes.
The result is therefore the same in every run.

Sources: FlashAttention (Dao et al. 2022, arXiv 2205.14135) for tiling and recomputation; FlashAttention-2 (Dao 2023,
arXiv 2307.08691) for the order of the loops. Tiles of queries run in parallel, the loop over keys is inside, and
there is one division at the end. Three more things make the kernels fast:

- Whole tiles are separate from cut tiles. In most tiles every row sees every key, so no mask is needed. Only tiles
  that the diagonal, the window's edge or the end of the keys cuts are masked. Tiles beyond these are never visited.
- exp2 replaces exp, because the hardware has only exp2. log2(e) is folded into the scale, and m is in units of log 2.
- The longest rows start first. Under a causal mask the last tile of queries has the most work.

The torch definition is `minillm.ops.flash_attention`.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))
MAX_HEAD_DIM = {torch.float16: 256, torch.bfloat16: 256, torch.float32: 128}


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(scale q k^T) v for q [B, S_q, H, D] and k, v [B, S_k, H_kv, D]: [B, S_q, H, D] in q's dtype.

    With `return_lse`, also return the log-sum-exp of each row's scores, float32 [B, H, S_q]; it carries no gradient.
    A causal mask aligns the last query with the last key. With `window`, a query sees the last `window` keys up to
    and including its own. A row that sees no key gets zeros, and its log-sum-exp is -inf. `scale` defaults to
    1 / sqrt(D).

    The inputs are float16 or bfloat16 with D up to 256, or float32 with D up to 128. Strides are free, but the last
    axis must be contiguous. The kernels run on a GPU from sm_80, or on a CPU under TRITON_INTERPRET=1 (where bfloat16
    gives wrong results). Raises TypeError or ValueError for other inputs.
    """
    _check(q, k, v, causal, window, scale)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = _FlashAttention.apply(q, k, v, causal, window, scale)
    return (out, lse) if return_lse else out


class _FlashAttention(torch.autograd.Function):
    """The kernels as one autograd function. It saves q, k, v, out and lse, and nothing of size S_q x S_k."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32, device=q.device)
        _launch(_forward, q, k, v, (out, lse), causal, window, scale)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.settings = causal, window, scale
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        d_out = d_out.contiguous()
        delta = torch.empty_like(lse)
        dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
        _launch(_backward_q, q, k, v, (out, lse, d_out, delta, dq), *ctx.settings)  # writes delta, too
        _launch(_backward_kv, q, k, v, (lse, d_out, delta, dk, dv), *ctx.settings)
        return dq, dk, dv, None, None, None


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, scale: float | None) -> None:
    """Raise TypeError or ValueError, with the numbers, if the kernels do not support these inputs."""
    if not q.ndim == k.ndim == v.ndim == 4:
        raise ValueError(
            f"q is [B, S_q, H, D], k and v [B, S_k, H_kv, D]; got {q.ndim}, {k.ndim} and {v.ndim} axes"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"q, k and v must have one dtype, but have {q.dtype}, {k.dtype} and {v.dtype}")
    if q.dtype not in MAX_HEAD_DIM:
        raise TypeError(f"{q.dtype} is not supported: use float16, bfloat16 or float32")
    if not q.device == k.device == v.device:
        raise ValueError(
            f"q, k and v must be on one device, but are on {q.device}, {k.device} and {v.device}"
        )
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        raise ValueError(f"k and v must be alike, and have the B and D of q; got {shapes}")
    num_heads, num_kv_heads, head_dim = q.shape[2], k.shape[2], q.shape[3]
    if num_kv_heads == 0 or num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} query heads cannot be shared out among {num_kv_heads} KV heads")
    if not 1 <= head_dim <= MAX_HEAD_DIM[q.dtype]:
        limit = f"the kernels take 1 to {MAX_HEAD_DIM[q.dtype]} in {q.dtype}"
        raise ValueError(f"head_dim {head_dim} does not fit on the chip: {limit}")
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.stride(-1) != 1 and head_dim > 1:
            raise ValueError(
                f"the last axis of {name} has stride {x.stride(-1)}, not 1: pass {name}.contiguous()"
            )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"a window needs causal=True and at least 1 key; got causal={causal}, {window} keys")
    if scale is not None and not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, not {scale}")
    if q.device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise ValueError(
            "the kernels need a GPU. For tensors on a CPU set TRITON_INTERPRET=1 before anything"
        )


def _launch(
    kernel: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    others: tuple[Tensor, ...],
    causal: bool,
    window: int | None,
    scale: float,
) -> None:
    """Run `kernel` with one program per tile of rows of each head: rows of queries, or of keys for `_backward_kv`."""
    batch, num_queries, num_heads, head_dim = q.shape
    num_keys, num_kv_heads = k.shape[1:3]
    config = config_for(kernel.__name__, q.dtype, head_dim)
    if kernel is _backward_kv:
        block_m, block_n = config.walk, config.own
        num_programs = triton.cdiv(num_keys, block_n) * num_kv_heads * batch
    else:
        block_m, block_n = config.own, config.walk
        num_programs = triton.cdiv(num_queries, block_m) * num_heads * batch
    if num_programs == 0:
        return
    with torch.cuda.device_of(q):  # Triton launches on the current device, which may differ from q's
        kernel[(num_programs,)](
            q,
            k,
            v,
            *others,
            *q.stride()[:3],
            *k.stride()[:3],
            *v.stride()[:3],
            num_queries,
            num_keys,
            num_heads,
            num_kv_heads,
            scale,
            HEAD_DIM=head_dim,
            BLOCK_D=max(16, triton.next_power_of_2(head_dim)),  # tensor cores need at least 16
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            CAUSAL=causal,
            WINDOW=window,
            num_warps=config.num_warps,
            num_stages=config.num_stages,
        )


# --- how a launch is cut ---


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a launch: rows of the tile that a program owns, rows of each tile of its walk, compiler options."""

    own: int
    walk: int
    num_warps: int
    num_stages: int


# By architecture and kernel, for head_dim up to 32, 64, 128 and 256, in float16 and bfloat16. These are large tiles
# that the compiler fits into registers without spilling (tests/kernels/test_compiled.py, kernels/README.md). None of
# them has been timed on a GPU.
# fmt: off
CONFIGS = {
    # Hopper: up to 227 KiB of shared memory per program.
    90: {
        "_forward": [Config(128, 64, 8, 3), Config(128, 128, 8, 3), Config(128, 64, 8, 3), Config(128, 32, 8, 2)],
        "_backward_q": [Config(128, 64, 8, 3), Config(128, 64, 8, 3), Config(128, 64, 8, 2), Config(64, 64, 8, 2)],
        "_backward_kv": [Config(128, 64, 8, 2), Config(128, 64, 8, 2), Config(128, 32, 8, 2), Config(64, 32, 8, 2)],
    },
    # Every other GPU from sm_80: within 99 KiB, the least that such a GPU has.
    80: {
        "_forward": [Config(128, 64, 8, 3), Config(128, 128, 8, 3), Config(128, 64, 8, 3), Config(64, 32, 8, 2)],
        "_backward_q": [Config(64, 64, 4, 3), Config(128, 64, 8, 3), Config(128, 32, 8, 2), Config(64, 16, 8, 2)],
        "_backward_kv": [Config(128, 64, 8, 2), Config(128, 64, 8, 2), Config(64, 64, 8, 2), Config(32, 32, 8, 2)],
    },
}
# fmt: on

# For head_dim up to 32, 64 and 128. float32 is meant to be exact, not fast: exact products do not run on tensor cores.
# With the other number of warps, 4 or 8, one of the backward kernels spills at 16, at 64 and at 128.
FLOAT32 = [Config(16, 16, 8, 1), Config(16, 16, 4, 1), Config(16, 16, 8, 1)]


def config_for(kernel: str, dtype: torch.dtype, head_dim: int) -> Config:
    """Return the table's entry for this GPU, or for the interpreter. Raises ValueError for a GPU older than sm_80."""
    interpreting = triton.knobs.runtime.interpret
    architecture = 80 if interpreting else triton.runtime.driver.active.get_current_target().arch
    if architecture < 80:
        raise ValueError(f"the kernels need a GPU from sm_80; this one is sm_{architecture}")
    if dtype == torch.float32:
        return FLOAT32[bisect_left((32, 64, 128), head_dim)]
    table = CONFIGS[90 if 90 <= architecture < 100 else 80]
    config = table[kernel][bisect_left((32, 64, 128, 256), head_dim)]
    if head_dim & (head_dim - 1) == 0:
        return config
    # If head_dim is not a power of two, tiles are wider than the rows, and the masks for that need registers.
    return replace(config, walk=max(16, config.walk // 2))


# --- the forward pass ---


# The lengths differ between calls. Without this option, Triton compiles the kernel again for 1 and multiples of 16.
@triton.jit(do_not_specialize=["num_queries", "num_keys"])
def _forward(
    q, k, v, out, lse,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,  # strides
    num_queries, num_keys, num_heads, num_kv_heads, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute out and lse of one tile of BLOCK_M queries of one head."""
    first, head, b = _query_tile(num_queries, num_heads, BLOCK_M)
    kv_head = head // (num_heads // num_kv_heads)
    k += b * k_batch + kv_head * k_head
    v += b * v_batch + kv_head * v_head
    q_tile = _load(
        q + b * q_batch + head * q_head, first, q_row, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True
    )

    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    begin, whole, edge, end = _keys_seen(first, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
    for start in range(whole, edge, BLOCK_N):
        acc, m, l = _attend(acc, m, l, q_tile, k, v, k_row, v_row, first, start, num_queries, num_keys, scale,
                            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, False)  # fmt: skip
    for t in range(_num_cut(begin, whole, edge, end, BLOCK_N)):
        start = _cut(t, begin, whole, edge, BLOCK_N)
        acc, m, l = _attend(acc, m, l, q_tile, k, v, k_row, v_row, first, start, num_queries, num_keys, scale,
                            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, True)  # fmt: skip

    l = tl.where(l == 0, 1, l)  # a row that saw no key keeps acc = 0 and m = -inf
    _store(out, acc / l[:, None], b, head, first, num_queries, num_heads, HEAD_DIM, BLOCK_M, BLOCK_D)
    i = first + tl.arange(0, BLOCK_M)
    row = (b * num_heads + head) * num_queries + i
    tl.store(lse + row, (m + tl.log2(l)) * LN_2, mask=i < num_queries)


@triton.jit
def _attend(
    acc, m, l, q_tile, k, v, k_row, v_row, first, start, num_queries, num_keys, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return acc [M, D], m [M] and l [M] after one step of the online softmax, which adds the keys from `start`."""
    k_tile = _load(k, start, k_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED)
    s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")  # [M, N]
    if MASKED:
        seen = _seen(first, start, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
        s = tl.where(seen, s, float("-inf"))
    scale *= LOG2_E
    new_m = tl.maximum(m, tl.max(s, 1) * scale)
    if MASKED:
        # A row that has seen no key yet keeps its m of -inf, but -inf - -inf is NaN: subtract 0 there.
        base = tl.where(new_m == float("-inf"), 0, new_m)
    else:
        base = new_m
    p = tl.exp2(s * scale - base[:, None])
    fade = tl.exp2(m - base)  # rescales sums relative to m into sums relative to new_m
    v_tile = _load(v, start, v_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED)
    l = l * fade + tl.sum(p, 1)  # before the product, so that p in float32 need not stay alive during it
    acc = tl.dot(p.to(v_tile.dtype), v_tile, acc * fade[:, None], input_precision="ieee")
    return acc, new_m, l


# --- the backward pass ---


@triton.jit(do_not_specialize=["num_queries", "num_keys"])
def _backward_q(
    q, k, v, out, lse, d_out, delta, dq,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,  # strides
    num_queries, num_keys, num_heads, num_kv_heads, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute dq and delta of one tile of queries, in the same walk over the keys as the forward pass."""
    first, head, b = _query_tile(num_queries, num_heads, BLOCK_M)
    kv_head = head // (num_heads // num_kv_heads)
    k += b * k_batch + kv_head * k_head
    v += b * v_batch + kv_head * v_head
    own = (b * num_queries * num_heads + head) * HEAD_DIM  # out, d_out and dq are contiguous
    own_row = num_heads * HEAD_DIM
    out_tile = _load(out + own, first, own_row, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True)
    do_tile = _load(d_out + own, first, own_row, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True)
    q_tile = _load(
        q + b * q_batch + head * q_head, first, q_row, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True
    )

    i = first + tl.arange(0, BLOCK_M)
    row = (b * num_heads + head) * num_queries + i
    delta_tile = tl.sum(out_tile.to(tl.float32) * do_tile.to(tl.float32), 1)
    tl.store(delta + row, delta_tile, mask=i < num_queries)
    lse_tile = tl.load(lse + row, mask=i < num_queries, other=float("inf")) * LOG2_E

    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    begin, whole, edge, end = _keys_seen(first, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
    for start in range(whole, edge, BLOCK_N):
        acc = _add_dq(acc, q_tile, do_tile, lse_tile, delta_tile, k, v, k_row, v_row, first, start,
                      num_queries, num_keys, scale,
                      HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, False)  # fmt: skip
    for t in range(_num_cut(begin, whole, edge, end, BLOCK_N)):
        start = _cut(t, begin, whole, edge, BLOCK_N)
        acc = _add_dq(acc, q_tile, do_tile, lse_tile, delta_tile, k, v, k_row, v_row, first, start,
                      num_queries, num_keys, scale,
                      HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, True)  # fmt: skip
    _store(dq, acc * scale, b, head, first, num_queries, num_heads, HEAD_DIM, BLOCK_M, BLOCK_D)


@triton.jit
def _add_dq(
    acc, q_tile, do_tile, lse_tile, delta_tile, k, v, k_row, v_row, first, start, num_queries, num_keys, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return acc [M, D] plus dS K for the keys from `start`."""
    k_tile = _load(k, start, k_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED)
    v_tile = _load(v, start, v_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, MASKED)
    s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")  # [M, N]
    p = tl.exp2(s * (scale * LOG2_E) - lse_tile[:, None])
    if MASKED:
        p = tl.where(_seen(first, start, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW), p, 0)
    dp = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee")  # [M, N]
    ds = p * (dp - delta_tile[:, None])
    return tl.dot(ds.to(k_tile.dtype), k_tile, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["num_queries", "num_keys"])
def _backward_kv(
    q, k, v, lse, d_out, delta, dk, dv,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,  # strides
    num_queries, num_keys, num_heads, num_kv_heads, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv of one tile of BLOCK_N keys of one KV head, in a walk over the queries of all its query heads.

    Scores are transposed here. There is no second loop for tiles without a mask: with two accumulators it does not
    fit into the registers."""
    num_tiles = tl.cdiv(num_keys, BLOCK_N)
    pid = tl.program_id(0)
    first = pid % num_tiles * BLOCK_N  # the most queries see the first keys, so these start first
    kv_head = pid // num_tiles % num_kv_heads
    b = (pid // num_tiles // num_kv_heads).to(tl.int64)
    k_tile = _load(
        k + b * k_batch + kv_head * k_head, first, k_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, True
    )
    v_tile = _load(
        v + b * v_batch + kv_head * v_head, first, v_row, num_keys, HEAD_DIM, BLOCK_N, BLOCK_D, True
    )

    dk_tile = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv_tile = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    begin, end = _queries_seeing(first, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
    per_head = tl.cdiv(end - begin, BLOCK_M)
    group = num_heads // num_kv_heads
    for t in range(group * per_head):
        head = kv_head * group + t // per_head
        start = begin + t % per_head * BLOCK_M
        q_of = q + b * q_batch + head * q_head
        do_of = d_out + (b * num_queries * num_heads + head) * HEAD_DIM
        q_tile = _load(q_of, start, q_row, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True)
        do_tile = _load(do_of, start, num_heads * HEAD_DIM, num_queries, HEAD_DIM, BLOCK_M, BLOCK_D, True)
        i = start + tl.arange(0, BLOCK_M)
        row = (b * num_heads + head) * num_queries + i
        lse_tile = tl.load(lse + row, mask=i < num_queries, other=float("inf")) * LOG2_E
        delta_tile = tl.load(delta + row, mask=i < num_queries, other=0)
        s = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee")  # [N, M]
        p = tl.exp2(s * (scale * LOG2_E) - lse_tile[None, :])
        seen = _seen(start, first, num_queries, num_keys, BLOCK_M, BLOCK_N, CAUSAL, WINDOW)
        p = tl.where(tl.trans(seen), p, 0)
        dv_tile = tl.dot(p.to(do_tile.dtype), do_tile, dv_tile, input_precision="ieee")
        dp = tl.dot(v_tile, tl.trans(do_tile), input_precision="ieee")  # [N, M]
        ds = p * (dp - delta_tile[None, :])
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision="ieee")
    _store(dk, dk_tile * scale, b, kv_head, first, num_keys, num_kv_heads, HEAD_DIM, BLOCK_N, BLOCK_D)
    _store(dv, dv_tile, b, kv_head, first, num_keys, num_kv_heads, HEAD_DIM, BLOCK_N, BLOCK_D)


# --- which query sees which key ---


@triton.jit
def _seen(
    first, start, num_queries, num_keys,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Return [M, N], true if a query of the tile from `first` sees a key of the tile from `start`."""
    i = (first + tl.arange(0, BLOCK_M))[:, None] + (num_keys - num_queries)  # the query's own key
    j = (start + tl.arange(0, BLOCK_N))[None, :]
    seen = (j < num_keys) & (i < num_keys)
    if CAUSAL:
        seen &= j <= i
    if WINDOW is not None:
        seen &= j > i - WINDOW
    return seen


@triton.jit
def _keys_seen(
    first, num_queries, num_keys,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Return begin <= whole <= edge <= end for the tile of queries from `first`.

    At least one of these queries sees a key of [begin, end), and all of them see every key of [whole, edge). All four
    but `end` are multiples of BLOCK_N."""
    begin, whole, edge, end = 0, 0, num_keys, num_keys
    i = first + num_keys - num_queries  # the first query's own key
    if CAUSAL:
        edge = tl.minimum(edge, i + 1)  # the first query sees no key further on,
        end = tl.minimum(end, i + BLOCK_M)  # and the last query none beyond this
    if WINDOW is not None:
        begin = i - WINDOW + 1  # the first query sees none before,
        whole = i + BLOCK_M - WINDOW  # and the last query none before this
    return _align(begin, whole, edge, end, BLOCK_N)


@triton.jit
def _queries_seeing(
    first, num_queries, num_keys,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """Return the queries [begin, end) that see a key of the tile from `first`; begin is a multiple of BLOCK_M."""
    begin, end = 0, num_queries
    i = first + num_queries - num_keys  # the query whose own key is the first key
    if CAUSAL:
        begin = tl.maximum(i, 0) // BLOCK_M * BLOCK_M  # no earlier query sees the first key,
    if WINDOW is not None:
        end = tl.minimum(end, i + BLOCK_N - 1 + WINDOW)  # and no later one the last
    return begin, tl.maximum(end, begin)


@triton.jit
def _align(begin, whole, edge, end, BLOCK: tl.constexpr):
    """Return the four limits moved to edges of tiles: [begin, end) grows, [whole, edge) shrinks, none is negative."""
    end = tl.maximum(end, 0)
    begin = tl.maximum(begin, 0) // BLOCK * BLOCK
    whole = tl.minimum(tl.cdiv(tl.maximum(whole, begin), BLOCK) * BLOCK, tl.cdiv(end, BLOCK) * BLOCK)
    edge = tl.maximum(tl.maximum(edge, 0) // BLOCK * BLOCK, whole)
    return begin, whole, edge, end


@triton.jit
def _num_cut(begin, whole, edge, end, BLOCK: tl.constexpr):
    """Return the number of cut tiles: tiles of [begin, end) that are not in [whole, edge)."""
    return (whole - begin) // BLOCK + tl.cdiv(end - edge, BLOCK)


@triton.jit
def _cut(t, begin, whole, edge, BLOCK: tl.constexpr):
    """Return the first key of cut tile t."""
    start = begin + t * BLOCK
    return tl.where(start < whole, start, start - whole + edge)


# --- tiles ---


@triton.jit
def _query_tile(num_queries, num_heads, BLOCK_M: tl.constexpr):
    """Return this program's first query, head and sequence. The last tile of queries comes first: its rows are the
    longest under a causal mask."""
    num_tiles = tl.cdiv(num_queries, BLOCK_M)
    pid = tl.program_id(0)
    first = (num_tiles - 1 - pid % num_tiles) * BLOCK_M
    head = pid // num_tiles % num_heads
    return first, head, (pid // num_tiles // num_heads).to(tl.int64)


@triton.jit
def _load(
    base, first, stride, num_rows,
    HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return rows [first, first + ROWS) of a matrix [num_rows, HEAD_DIM] as [ROWS, BLOCK_D], padded with zeros.

    Without MASKED all the rows must exist."""
    row, d = first + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK_D)[None, :]
    at = base + row.to(tl.int64) * stride + d
    if MASKED or HEAD_DIM != BLOCK_D:
        tile = tl.load(at, mask=(row < num_rows) & (d < HEAD_DIM), other=0)
    else:
        tile = tl.load(at)
    return tile


@triton.jit
def _store(
    base, tile, b, head, first, num_rows, num_heads,
    HEAD_DIM: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write a tile [ROWS, BLOCK_D] to the rows from `first` of a contiguous [B, num_rows, num_heads, HEAD_DIM]."""
    row, d = first + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK_D)[None, :]
    at = base + ((b * num_rows + row) * num_heads + head) * HEAD_DIM + d
    tl.store(at, tile.to(base.dtype.element_ty), mask=(row < num_rows) & (d < HEAD_DIM))

# exercise: 05.4
"""From the last tile to the first, K loaded the other way round, in a function of its own."""

import triton
import triton.language as tl


@triton.jit
def rows(at, j, num_keys, d, HEAD_DIM: tl.constexpr):
    return tl.load(at + j[:, None] * HEAD_DIM + d[None, :], mask=j[:, None] < num_keys, other=0.0)


@triton.jit
def walk(
    q_tile, k, v, first, num_keys, scale,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    query, d = first + tl.arange(0, BLOCK_M), tl.arange(0, HEAD_DIM)
    acc = tl.zeros((BLOCK_M, HEAD_DIM), dtype=tl.float32)
    m = tl.full((BLOCK_M,), -1e30, dtype=tl.float32)
    l = tl.zeros((BLOCK_M,), dtype=tl.float32)
    num_tiles = tl.cdiv(tl.minimum(first + BLOCK_M, num_keys), BLOCK_N)
    for t in range(num_tiles):
        j = (num_tiles - 1 - t) * BLOCK_N + tl.arange(0, BLOCK_N)
        mask = (j < num_keys)[None, :]
        k_t = tl.load(k + j[None, :] * HEAD_DIM + d[:, None], mask=mask, other=0.0)  # [D, N]
        s = tl.dot(q_tile, k_t) * scale
        s += tl.where(query[:, None] >= j[None, :], 0.0, float("-inf"))
        top = tl.maximum(tl.max(s, axis=1), m)
        p = tl.exp(s - top[:, None])
        fade = tl.exp(m - top)
        v_tile = rows(v, j, num_keys, d, HEAD_DIM)
        acc *= fade[:, None]
        acc = tl.dot(p.to(v_tile.dtype), v_tile, acc)
        l = fade * l + tl.sum(p, axis=1)
        m = top
    return acc, m, l

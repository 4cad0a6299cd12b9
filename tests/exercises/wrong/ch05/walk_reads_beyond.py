# exercise: 05.4
# says: memory outside the tensors
"""Loads without a mask."""

import triton
import triton.language as tl


@triton.jit
def walk(
    q_tile, k, v, first, num_keys, scale,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    i = first + tl.arange(0, BLOCK_M)
    d = tl.arange(0, HEAD_DIM)
    acc = tl.zeros([BLOCK_M, HEAD_DIM], tl.float32)
    m = tl.full([BLOCK_M], float("-inf"), tl.float32)
    l = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, tl.minimum(first + BLOCK_M, num_keys), BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        at = j[:, None] * HEAD_DIM + d[None, :]
        k_tile = tl.load(k + at)
        v_tile = tl.load(v + at)
        s = tl.dot(q_tile, tl.trans(k_tile)) * scale
        s = tl.where(j[None, :] <= i[:, None], s, float("-inf"))
        new_m = tl.maximum(m, tl.max(s, 1))
        p = tl.exp(s - new_m[:, None])
        fade = tl.exp(m - new_m)
        l = l * fade + tl.sum(p, 1)
        acc = acc * fade[:, None] + tl.dot(p.to(v_tile.dtype), v_tile)
        m = new_m
    return acc, m, l

"""The kernel around the learner's inner loop. It assigns the tiles of queries, and stores the results of the loop.

Only the exercise's notebook and the check of 05.4 import it, because triton has no build for some systems.
"""
# mypy: ignore-errors
# The body of a @triton.jit function is another language in Python's syntax.

import torch
import triton
import triton.language as tl
from torch import Tensor


def attention_by(walk, q: Tensor, k: Tensor, v: Tensor, block_m: int, block_n: int) -> tuple[Tensor, Tensor]:
    """Return one head's causal attention by a @triton.jit function `walk`: out [S, D] and log-sum-exp [S].

    q, k and v [S, D] are contiguous, float16 or float32; D, `block_m` and `block_n` are powers of two from 16 on.
    """
    num_keys, head_dim = k.shape
    out = torch.empty_like(q)
    lse = torch.empty(num_keys, device=q.device)
    grid = (triton.cdiv(num_keys, block_m),)
    with torch.cuda.device_of(q):
        _attention[grid](
            *(q, k, v, out, lse, num_keys, head_dim**-0.5),
            WALK=walk,
            HEAD_DIM=head_dim,
            BLOCK_M=block_m,
            BLOCK_N=block_n,
        )
    return out, lse


@triton.jit
def _attention(
    q, k, v, out, lse, num_keys, scale,
    WALK: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * BLOCK_M
    i = first + tl.arange(0, BLOCK_M)
    at = i[:, None] * HEAD_DIM + tl.arange(0, HEAD_DIM)[None, :]
    q_tile = tl.load(q + at, mask=i[:, None] < num_keys, other=0)
    acc, m, l = WALK(q_tile, k, v, first, num_keys, scale, HEAD_DIM, BLOCK_M, BLOCK_N)
    tl.store(out + at, (acc / l[:, None]).to(out.dtype.element_ty), mask=i[:, None] < num_keys)
    tl.store(lse + i, m + tl.log(l), mask=i < num_keys)

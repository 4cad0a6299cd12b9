"""RMSNorm in one pass, optionally with the residual addition before it in the same pass.

In torch, `residual + x` writes the sum, and the norm reads it again. That makes five passes over a [T, hidden] tensor:
read x, read residual, write the sum, read the sum, write the norm. The fused kernel makes four, in one launch. It
computes only a few operations per byte, so fusion can save bytes and launches but not arithmetic.

A program holds each row in registers from its load to its store. It takes several short rows at a time, such as the
norm of each head in Qwen3. With a single short row, a program would cost more to launch than to run.

Source: Zhang and Sennrich 2019, arXiv 1910.07467.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 2048  # the least number of elements per program, in as many rows as that takes
ELEMENTS_PER_WARP = 512
LONGEST_ROW = 32_768  # 64 values per thread of 16 warps


@triton.jit
def _rms_norm(
    x_ptr,  # [T, H, N]: a token's rows row_stride apart
    residual_ptr,  # [rows, N], or None
    weight_ptr,  # [N]
    out_ptr,  # [rows, N]
    sum_ptr,  # [rows, N], or None
    num_rows,
    token_stride,
    row_stride,
    eps,
    H: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    N_PAD: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    column = tl.arange(0, N_PAD)
    mask = (row < num_rows)[:, None] & (column < N)[None, :]
    offset = row[:, None] * N + column[None, :]
    x_offset = (row // H * token_stride + row % H * row_stride)[:, None] + column[None, :]
    x = tl.load(x_ptr + x_offset, mask=mask, other=0.0).to(tl.float32)  # [ROWS, N]
    if residual_ptr is not None:
        x += tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
        # The sum is stored in the residual stream's dtype, and the norm uses the stored (rounded) values.
        stored = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + offset, stored, mask=mask)
        x = stored.to(tl.float32)
    weight = tl.load(weight_ptr + column, mask=column < N, other=0.0).to(tl.float32)
    norm = x * tl.rsqrt(tl.sum(x * x, 1) / N + eps)[:, None] * weight[None, :]
    tl.store(out_ptr + offset, norm.to(out_ptr.dtype.element_ty), mask=mask)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axis of x [T, N] or [T, H, N].

    The inputs are float32, float16 or bfloat16, and the computation is in float32. x may be a part of wider rows. The
    result is contiguous and has x's shape and dtype. Raises ValueError for other shapes.
    """
    _check(x, weight)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    _launch(x, None, weight, out, None, eps)
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the norm of `x + residual`, and the sum itself (the new residual stream): two new tensors [T, N].

    The rules of `rms_norm` apply. `residual` is contiguous and has x's shape and dtype.
    """
    _check(x, weight)
    if residual.shape != x.shape or residual.dtype != x.dtype or not residual.is_contiguous():
        raise ValueError(
            f"residual {tuple(residual.shape)} {residual.dtype} has strides {residual.stride()}. It must be contiguous "
            f"and have the shape and dtype of x, {tuple(x.shape)} {x.dtype}"
        )
    out, total = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    _launch(x, residual, weight, out, total, eps)
    return out, total


def _launch(
    x: Tensor, residual: Tensor | None, weight: Tensor, out: Tensor, total: Tensor | None, eps: float
) -> None:
    num_rows, n = x.numel() // x.shape[-1], x.shape[-1]
    if num_rows == 0:
        return
    n_pad = triton.next_power_of_2(n)
    rows = max(ELEMENTS // n_pad, 1)
    _rms_norm[(triton.cdiv(num_rows, rows),)](
        *(x, residual, weight, out, total, num_rows, x.stride(0), x.stride(-2), eps),
        H=x.shape[1] if x.ndim == 3 else 1,
        N=n,
        ROWS=rows,
        N_PAD=n_pad,
        num_warps=min(max(rows * n_pad // ELEMENTS_PER_WARP, 1), 16),
    )


def _check(x: Tensor, weight: Tensor) -> None:
    n = x.shape[-1]
    if x.ndim not in (2, 3) or weight.shape != (n,) or x.stride(-1) != 1 or weight.stride() != (1,):
        raise ValueError(
            f"x is {tuple(x.shape)} with strides {x.stride()}, and weight is {tuple(weight.shape)}. x must be [T, N] "
            "or [T, H, N] with contiguous rows, and weight contiguous [N]"
        )
    if n > LONGEST_ROW:
        raise ValueError(
            f"a row of {n} values does not fit into one program's registers: the limit is {LONGEST_ROW} values"
        )

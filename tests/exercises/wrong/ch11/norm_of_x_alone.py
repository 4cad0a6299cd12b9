# exercise: 11.1
# says: norm is of x alone
"""The sum is stored, but x is normalised."""

import torch
import triton
import triton.language as tl


@triton.jit
def _add_rms_norm(x_ptr, residual_ptr, weight_ptr, norm_ptr, total_ptr, eps, N: tl.constexpr, BLOCK: tl.constexpr):
    column = tl.arange(0, BLOCK)
    mask = column < N
    offset = tl.program_id(0) * N + column
    x = tl.load(x_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    total = x + tl.load(residual_ptr + offset, mask=mask, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / N + eps)
    weight = tl.load(weight_ptr + column, mask=mask, other=0.0).to(tl.float32)
    tl.store(total_ptr + offset, total, mask=mask)
    tl.store(norm_ptr + offset, x * scale * weight, mask=mask)


def add_rms_norm(x, residual, weight, eps):
    norm, total = torch.empty_like(x), torch.empty_like(x)
    num_rows, n = x.shape
    block = triton.next_power_of_2(n)
    _add_rms_norm[(num_rows,)](x, residual, weight, norm, total, eps, N=n, BLOCK=block)
    return norm, total

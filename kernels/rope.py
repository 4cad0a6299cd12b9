"""Rotary position embedding: rotate each pair (x[i], x[i + D/2]) by its position's angle, in one pass.

The torch definition first makes a rolled copy of x (`roll`) and then two more passes. Here a program loads both halves
of a few heads and the token's angles once, and stores both rotated halves.

The first half of `sin` carries the minus sign of the rotation, so that both halves are the same formula:
`own half * cos + other half * sin`.

Source: Su et al. 2021, RoFormer, arXiv 2104.09864, in the half-split pairing of GPT-NeoX and Llama.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ELEMENTS = 1024  # of half a head, in as many heads as it takes


@triton.jit
def _rope(
    x_ptr,  # [T, H, D], the tokens x_stride apart
    cos_ptr,  # [T, D], the tokens angle_stride apart
    sin_ptr,
    out_ptr,  # [T, H, D]
    x_stride,
    angle_stride,
    H: tl.constexpr,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    HALF_PAD: tl.constexpr,
):
    HALF: tl.constexpr = D // 2
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    i = tl.arange(0, HALF_PAD)
    mask = (head < H)[:, None] & (i < HALF)[None, :]
    offset = head[:, None] * D + i[None, :]
    left = tl.load(x_ptr + token * x_stride + offset, mask=mask, other=0.0).to(tl.float32)  # [HEADS, D / 2]
    right = tl.load(x_ptr + token * x_stride + offset + HALF, mask=mask, other=0.0).to(tl.float32)
    angle = token * angle_stride + i
    cos_left = tl.load(cos_ptr + angle, mask=i < HALF, other=0.0).to(tl.float32)
    cos_right = tl.load(cos_ptr + angle + HALF, mask=i < HALF, other=0.0).to(tl.float32)
    sin_left = tl.load(sin_ptr + angle, mask=i < HALF, other=0.0).to(tl.float32)
    sin_right = tl.load(sin_ptr + angle + HALF, mask=i < HALF, other=0.0).to(tl.float32)
    out = out_ptr + token * (H * D) + offset
    tl.store(
        out, (left * cos_left[None, :] + right * sin_left[None, :]).to(out_ptr.dtype.element_ty), mask=mask
    )
    turned = (right * cos_right[None, :] + left * sin_right[None, :]).to(out_ptr.dtype.element_ty)
    tl.store(out + HALF, turned, mask=mask)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return x [T, H, D] with each pair of each head rotated by its token's angle: a new, contiguous tensor like x.

    cos and sin are [T, 1, D], as `rope_table` returns them. All inputs are float32, float16 or bfloat16, and the
    computation is in float32. The tokens of x may be any distance apart, but the heads of a token must be adjacent.
    Raises ValueError for other shapes.
    """
    if x.ndim != 3 or x.shape[-1] % 2 or x.stride()[1:] != (x.shape[-1], 1):
        raise ValueError(
            f"x is {tuple(x.shape)} with strides {x.stride()}. It must be [T, H, D] with an even D, and the heads of a "
            "token adjacent (x.contiguous())"
        )
    num_tokens, num_heads, head_dim = x.shape
    for name, angle in (("cos", cos), ("sin", sin)):
        if angle.shape != (num_tokens, 1, head_dim) or not angle.is_contiguous():
            raise ValueError(
                f"{name} {tuple(angle.shape)}, strides {angle.stride()}, must be contiguous {(num_tokens, 1, head_dim)}"
            )
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half_pad = triton.next_power_of_2(head_dim // 2)
    heads = min(max(ELEMENTS // half_pad, 1), triton.next_power_of_2(num_heads))
    if num_tokens == 0:
        return out
    _rope[(num_tokens, triton.cdiv(num_heads, heads))](
        *(x, cos, sin, out, x.stride(0), head_dim),
        H=num_heads,
        D=head_dim,
        HEADS=heads,
        HALF_PAD=half_pad,
        num_warps=min(max(heads * half_pad // 128, 1), 8),
    )
    return out

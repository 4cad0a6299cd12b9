"""Write this step's keys and values into the paged cache, and quantise them if the cache is quantised.

This is a scatter: token t goes to slot `slot_mapping[t]`. One program takes one token with all its heads, of both K and
V, so a step costs one launch per layer. A token with slot -1 is not written; a CUDA graph's padding rows use it.

An int8 or fp8 cache halves the bytes that attention must read. Each token and head has its own scale: its largest
absolute value divided by the largest number of the format. An outlier in one token therefore costs no precision in
another, and a slot never depends on other slots. Sources: Sheng et al. 2023, FlexGen, arXiv 2303.06865, for per-token
scales; Micikevicius et al. 2022, arXiv 2209.05433, for fp8 e4m3.
"""

import triton
import triton.language as tl
from torch import Tensor

from minillm.layer_kv import LARGEST, LayerKV


@triton.jit
def _store(
    x,
    cache_ptr,
    scale_ptr,
    slot,
    mask,
    offset,
    head,
    head_exists,
    H_KV: tl.constexpr,
    D: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Put one token's heads x [H, D] float32 into `slot`; LARGEST is 0 if the cache is not quantised."""
    kept = x
    if LARGEST > 0:
        # div_rn rounds as torch does. The last bit of `/` can be wrong, and rounding may turn that into a whole unit.
        peak = tl.max(tl.abs(x), 1)  # [H]
        scale = tl.div_rn(peak, tl.full(peak.shape, LARGEST, tl.float32))
        kept = tl.div_rn(
            x, tl.broadcast_to(tl.where(scale == 0, 1.0, scale)[:, None], x.shape)
        )  # zeros stay zeros
        tl.store(scale_ptr + slot * H_KV + head, scale, mask=head_exists)
        if cache_ptr.dtype.element_ty == tl.int8:
            # Round half to even, as torch.round does: at 1.5 * 2**23 a float32 has no bits for a fraction.
            kept = (kept + 12582912.0) - 12582912.0
    tl.store(cache_ptr + slot * (H_KV * D) + offset, kept.to(cache_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _write(
    k_ptr,  # [T, H_KV, D], the tokens k_stride apart
    v_ptr,
    k_cache_ptr,  # [slots, H_KV, D]: the blocks laid end to end
    v_cache_ptr,
    k_scale_ptr,  # [slots, H_KV] float32
    v_scale_ptr,
    slot_mapping_ptr,  # [T]
    k_stride,
    v_stride,
    H_KV: tl.constexpr,
    H_PAD: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    LARGEST: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slot_mapping_ptr + token).to(tl.int64)
    if slot < 0:
        return
    head, d = tl.arange(0, H_PAD), tl.arange(0, D_PAD)
    head_exists = head < H_KV
    mask = head_exists[:, None] & (d < D)[None, :]
    offset = head[:, None] * D + d[None, :]
    k = tl.load(k_ptr + token * k_stride + offset, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(v_ptr + token * v_stride + offset, mask=mask, other=0.0).to(tl.float32)
    _store(k, k_cache_ptr, k_scale_ptr, slot, mask, offset, head, head_exists, H_KV, D, LARGEST)
    _store(v, v_cache_ptr, v_scale_ptr, slot, mask, offset, head, head_exists, H_KV, D, LARGEST)


def write_kv(k: Tensor, v: Tensor, kv: LayerKV, slot_mapping: Tensor) -> None:
    """Write each token's key and value [T, H_kv, D] into its slot of one layer's cache.

    k and v are float32, float16 or bfloat16. Their tokens may be any distance apart, but the heads of a token must be
    adjacent. The tensors of `kv` are contiguous. `slot_mapping` holds T integers: a token with -1 is not written, and
    any other number outside the cache writes to unrelated memory without an error. If `kv` has scales, its K and V are
    int8 or float8_e4m3fn. Then x is stored as round(x / scale) with scale = max |x| / 127 (or 448) over the token's
    head, and the scale is stored for the same slot. Raises ValueError for other inputs.
    """
    _check(k, v, kv, slot_mapping)
    num_tokens, num_kv_heads, head_dim = k.shape
    h_pad, d_pad = triton.next_power_of_2(num_kv_heads), triton.next_power_of_2(head_dim)
    if num_tokens == 0:
        return
    _write[(num_tokens,)](
        *(k, v, *kv, slot_mapping, k.stride(0), v.stride(0)),
        H_KV=num_kv_heads,
        H_PAD=h_pad,
        D=head_dim,
        D_PAD=d_pad,
        LARGEST=LARGEST[kv.k.dtype] if kv.k_scale is not None else 0.0,
        num_warps=min(max(h_pad * d_pad // 512, 1), 8),  # 16 elements of K and 16 of V per thread
    )


def _check(k: Tensor, v: Tensor, kv: LayerKV, slot_mapping: Tensor) -> None:
    """Raise ValueError for inputs that would be written to the wrong place. Nothing here waits for the device."""
    num_tokens, num_kv_heads, head_dim = k.shape
    if v.shape != k.shape or slot_mapping.shape != (num_tokens,) or slot_mapping.stride() != (1,):
        raise ValueError(
            f"k is {tuple(k.shape)}, v is {tuple(v.shape)} and slot_mapping is {tuple(slot_mapping.shape)}. "
            "k and v must both be [T, H_kv, D], and slot_mapping contiguous [T]"
        )
    kv.check()
    for name, new, stored in (("k", k, kv.k), ("v", v, kv.v)):
        if stored.shape[2:] != k.shape[1:]:
            raise ValueError(
                f"kv.{name} {tuple(stored.shape)} must be [blocks, block_size, {num_kv_heads}, {head_dim}] to hold "
                f"{name} {tuple(k.shape)}"
            )
        if new.stride()[1:] != (head_dim, 1):
            raise ValueError(f"{name} has strides {new.stride()}: the heads of a token must be adjacent")
        if not new.is_floating_point() or stored.dtype not in (new.dtype, *LARGEST):
            raise ValueError(
                f"kv.{name} is {stored.dtype} and {name} is {new.dtype}: kv.{name} must have the same dtype, or be "
                "int8 or float8_e4m3fn"
            )

"""Every performance-critical operation by name, with the torch code that defines it.

This is the only interface between the model and the kernels: the model gets an `Ops` and calls its operations. The
torch code defines the meaning of an operation. A kernel (kernels/) or a fast path for CPUs (cpu/) may replace it if it
computes the same. All operations are flat over the T tokens of a step (batch.py).
"""

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minillm.batch import Batch
from minillm.cpu import linear as cpu_linear
from minillm.cpu import paged_attention as cpu_attention
from minillm.cpu.quantized import MeasuredMatmul
from minillm.layer_kv import LARGEST, LayerKV
from minillm.packed import QuantizedWeight

QuantizedMatmul = Callable[[Tensor, QuantizedWeight, Tensor | None], Tensor]  # x [T, in] -> [T, out]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x W + b [T, out] for x [T, in], a weight [in, out] of any memory order, and a bias [out] or None."""
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def int8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight of 8-bit integers [out, in] (W8A16)."""
    return _dequantised_matmul(x, weight, bias)


def int4_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight of 4-bit integers [out, in] (W4A16)."""
    return _dequantised_matmul(x, weight, bias)


def fp8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] for x [T, in] and a weight in float8_e4m3fn [out, in] (W8A16)."""
    return _dequantised_matmul(x, weight, bias)


def w8a8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] with both sides in 8-bit integers: x [T, in] is quantised here, token by token.

    `weight` is symmetric with one scale per row. Products of integers are added up exactly, in int32; then each sum is
    multiplied by the scales of its token and its row: y = (q_x q_w^T) * s_x * s_w.
    """
    numbers, scale = quantise_tokens(x, torch.int8)
    # float64 holds every int32 sum, and unlike int32 it has a product on every device.
    y = (numbers.double() @ weight.numbers.double().t()).float() * scale[:, None] * weight.scale.float().t()
    return (y if bias is None else y + bias).to(x.dtype)


def w8a8_fp8_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    """Return x W^T + b [T, out] with both sides in float8_e4m3fn: x [T, in] is quantised here, token by token.

    `weight` has one scale per row. The products are added up in float32.
    """
    numbers, scale = quantise_tokens(x, torch.float8_e4m3fn)
    y = (numbers.float() @ weight.numbers.float().t()) * scale[:, None] * weight.scale.float().t()
    return (y if bias is None else y + bias).to(x.dtype)


def quantise_tokens(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return x [T, in] in `dtype` (int8 or float8_e4m3fn), and one scale per token [T] float32.

    Integers use all 256 numbers: the scale is max |x| / 127.5, and the largest x is cut from 127.5 to 127. These are
    the numbers that `compressed-tensors` computes.
    """
    if dtype != torch.int8:
        return quantise(x, dtype)
    x = x.float()
    scale = x.abs().amax(-1) / 127.5
    numbers = (x / scale.where(scale != 0, 1.0)[:, None]).round().clamp_(-128, 127)
    return numbers.to(torch.int8), scale


def _dequantised_matmul(x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight.dequantise(x.dtype), bias)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    return F.rms_norm(x, weight.shape, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return the norm of the new residual stream `x + residual`, and the stream itself."""
    residual = residual + x
    return rms_norm(residual, weight, eps), residual


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (x[i], x[i + D/2]) by its position's angle (Su et al. 2021, arXiv 2104.09864).

    x [T, H, D]; cos and sin [T, 1, D]. The first half of `sin` carries the minus sign of the rotation, so that only
    the halves of x must be swapped.
    """
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), sin)


def swiglu(gate_up: Tensor) -> Tensor:
    """Return silu(gate) * up of the fused projection [T, 2 M]: [T, M] (Shazeer 2020, arXiv 2002.05202)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def write_kv(k: Tensor, v: Tensor, kv: LayerKV, slot_mapping: Tensor) -> None:
    """Write each token's key and value [T, H_kv, D] into its slot of one layer's cache, quantised if it has scales."""
    for x, stored, scales in ((k, kv.k, kv.k_scale), (v, kv.v, kv.v_scale)):
        if scales is not None:
            x, scale = quantise(x, stored.dtype)
            scales.view(-1, scale.shape[1]).index_copy_(0, slot_mapping, scale)
            x, stored = x.view(torch.int8), stored.view(torch.int8)  # index_copy_ knows no float8 on a CPU
        stored.view(-1, *x.shape[1:]).index_copy_(0, slot_mapping, x)


def quantise(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return x [..., D] in `dtype` (int8 or float8_e4m3fn), and one scale for each of its vectors, [...] float32.

    The largest number of a vector becomes the largest of the format, and zero stays zero: x is close to
    `dequantise(*quantise(x, dtype), x.dtype)`.
    """
    x = x.float()
    scale = x.abs().amax(-1) / LARGEST[dtype]
    x = x / scale.where(scale != 0, 1.0)[..., None]
    return (x.round() if dtype == torch.int8 else x).to(dtype), scale


def dequantise(x: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return the values that the numbers x [..., D] and their scales [...] stand for; x itself without scales."""
    return x if scale is None else (x.float() * scale[..., None]).to(dtype)


def causal_mask(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return [num_queries, num_keys], true where a query sees a key. The last query is at the last key's position."""
    i = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    j = torch.arange(num_keys, device=device)
    return (j <= i) if window is None else (j <= i) & (j > i - window)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Return the causal attention of one sequence: q [n, H, D] are its last n tokens, k and v [s, H_kv, D] all of them.

    softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017); each KV head serves H / H_kv query heads (GQA, Ainslie
    et al. 2023, arXiv 2305.13245).
    """
    plain = len(q) == len(k) and (
        window is None or len(k) <= window
    )  # the causal mask that torch has built in
    out = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None],  # [1, H, n, D]
        k.transpose(0, 1)[None],  # [1, H_kv, s, D]
        v.transpose(0, 1)[None],
        attn_mask=None if plain else causal_mask(len(q), len(k), window, q.device),
        is_causal=plain,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)


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
    """Return softmax(scale q k^T) v of whole sequences: what `minillm.kernels.flash_attention` must compute.

    q [B, S_q, H, D], k and v [B, S_k, H_kv, D]; the log-sum-exp of each row's scores is [B, H, S_q]. Computes in
    float32 (float64 stays float64). A row that sees no key, such as the first ones if S_q > S_k, is zeros.
    """
    float_dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[2] // k.shape[2]
    keys, values = (x.to(float_dtype).repeat_interleave(group, dim=2) for x in (k, v))  # [B, S_k, H, D]
    scores = torch.einsum("bihd,bjhd->bhij", q.to(float_dtype), keys)  # all that the kernel never writes
    scores = scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(~causal_mask(q.shape[1], k.shape[1], window, q.device), float("-inf"))
    lse = scores.logsumexp(dim=-1)
    weights = (scores - lse.where(lse != float("-inf"), 0)[..., None]).exp()
    out = torch.einsum("bhij,bjhd->bihd", weights, values).to(q.dtype)
    return (out, lse) if return_lse else out


def self_attention(q: Tensor, k: Tensor, v: Tensor, batch: Batch, window: int | None) -> Tensor:
    """Return attention without a cache: each request's tokens [T, H, D] see only the request's tokens of this step."""
    out, start = torch.empty_like(q), 0
    for chunk in batch.chunks:
        rows = slice(start, start := start + len(chunk.token_ids))
        out[rows] = attend(q[rows], k[rows], v[rows], window)
    return out


def paged_attention(q: Tensor, kv: LayerKV, batch: Batch, window: int | None) -> Tensor:
    """Return the attention of each request's new tokens [T, H, D] over all its tokens in one layer's cache.

    The definition copies the tokens of a request out of its blocks; kernels and the CPU's own way (cpu/) read them in
    place.
    """
    out, start = torch.empty_like(q), 0
    for chunk, table in zip(batch.chunks, batch.block_tables.long(), strict=True):
        rows = slice(start, start := start + len(chunk.token_ids))
        positions = torch.arange(chunk.seq_len, device=q.device)
        blocks, offsets = table[positions // batch.block_size], positions % batch.block_size
        k, v = (
            dequantise(stored[blocks, offsets], None if scale is None else scale[blocks, offsets], q.dtype)
            for stored, scale in ((kv.k, kv.k_scale), (kv.v, kv.v_scale))
        )
        out[rows] = attend(q[rows], k, v, window)
    return out


@dataclass(frozen=True, slots=True)
class Ops:
    """The operations that a model runs on; the defaults are the definitions above.

    `recordable`: the operations skip slots of -1 and lengths of 0 and read only the batch's tensors, so that a CUDA
    graph of them can be replayed with other requests.
    """

    linear: Callable[[Tensor, Tensor, Tensor | None], Tensor] = linear
    int8_matmul: QuantizedMatmul = int8_matmul
    int4_matmul: QuantizedMatmul = int4_matmul
    fp8_matmul: QuantizedMatmul = fp8_matmul
    w8a8_matmul: QuantizedMatmul = w8a8_matmul
    w8a8_fp8_matmul: QuantizedMatmul = w8a8_fp8_matmul
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = add_rms_norm
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = rope
    swiglu: Callable[[Tensor], Tensor] = swiglu
    write_kv: Callable[[Tensor, Tensor, LayerKV, Tensor], None] = write_kv
    paged_attention: Callable[[Tensor, LayerKV, Batch, int | None], Tensor] = paged_attention
    recordable: bool = False

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the operations."""
        return tuple(f.name for f in fields(cls) if f.name != "recordable")


# The products with weights, and those of cpu/ for packed ones.
PRODUCTS: dict[str, Any] = {
    "linear": linear,
    "int8_matmul": int8_matmul,
    "int4_matmul": int4_matmul,
    "fp8_matmul": fp8_matmul,
    "w8a8_matmul": w8a8_matmul,
    "w8a8_fp8_matmul": w8a8_fp8_matmul,
}
MEASURED: dict[str, Any] = {
    name: MeasuredMatmul(name.removesuffix("_matmul"), product)
    for name, product in PRODUCTS.items()
    if name != "linear"
}


def ops_for(device: torch.device) -> Ops:
    """Return the Triton kernels on a GPU that supports them, and cpu/ on a CPU; elsewhere the definitions above.

    `MINILLM_KERNELS=off` asks for the definitions everywhere; `minillm.swap(rope=minillm.ops.rope)` asks for one.
    `MINILLM_KERNELS=interpret` runs the kernels on a CPU, slowly, in Triton's interpreter, which must be on
    (`TRITON_INTERPRET=1`) before anything imports triton. Raises `ValueError` for another word, `RuntimeError` if the
    interpreter is off.

    `MINILLM_LINEAR=reference` asks for the definitions of all matrix products. Kernels and cpu/ round differently for
    different numbers of rows, so a request's logits depend slightly on the other requests of its step.
    """
    ops = _ops_for(device, _variable("MINILLM_KERNELS", "off", "interpret"))
    if _variable("MINILLM_LINEAR", "reference"):
        return replace(ops, **PRODUCTS)
    return ops


def _variable(name: str, *words: str) -> str:
    """Return the value of an environment variable that is one of `words`, or empty."""
    value = os.environ.get(name, "")
    if value not in ("", *words):
        raise ValueError(f"{name}={value!r}: {', '.join(map(repr, words))} or nothing")
    return value


def _ops_for(device: torch.device, wanted: str) -> Ops:
    if wanted == "off":
        return Ops()
    if wanted == "interpret":
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise RuntimeError(
                "MINILLM_KERNELS=interpret needs TRITON_INTERPRET=1 from the start of the process"
            )
    elif device.type != "cuda" or not _runs_kernels(device):
        product = linear
        if device.type == "cpu" and cpu_linear.is_faster_here():
            product = cpu_linear.linear_on_intel if cpu_linear.is_intel() else cpu_linear.linear
        ops = Ops(linear=product, paged_attention=cpu_attention.paged_attention)
        return replace(ops, **MEASURED) if device.type == "cpu" else ops
    from minillm.kernels import (
        cache_write,
        int4_matmul,
        int8_matmul,
        paged_attention,
        rms_norm,
        rope,
        swiglu,
    )

    return Ops(
        int8_matmul=int8_matmul.int8_matmul,
        int4_matmul=int4_matmul.int4_matmul,
        fp8_matmul=int8_matmul.fp8_matmul,
        w8a8_matmul=int8_matmul.w8a8_matmul,
        w8a8_fp8_matmul=int8_matmul.w8a8_fp8_matmul,
        rms_norm=rms_norm.rms_norm,
        add_rms_norm=rms_norm.add_rms_norm,
        rope=rope.rope,
        swiglu=swiglu.swiglu,
        write_kv=cache_write.write_kv,
        paged_attention=paged_attention.paged_attention,
        recordable=True,
    )


def _runs_kernels(device: torch.device) -> bool:
    """Return whether Triton is installed and the GPU is of the Ampere generation or newer. Warn once if not."""
    if importlib.util.find_spec("triton") is None:
        reason = "Triton is not installed"
    elif (capability := torch.cuda.get_device_capability(device)) < (8, 0):
        reason = (
            f"they need compute capability 8.0, and {torch.cuda.get_device_name(device)} has {capability}"
        )
    else:
        return True
    warnings.warn(f"no Triton kernels: {reason}. PyTorch's own operations run instead", stacklevel=4)
    return False

"""The fused layers and the cache's writes: cases to run interpreted or on a GPU, launches to compile.

Fresh memory is NaN, so that what a kernel leaves out is seen.
"""

import math
from typing import Any

import torch
from torch import Tensor

from minillm import ops
from minillm.kernels.cache_write import write_kv
from minillm.kernels.rms_norm import add_rms_norm, rms_norm
from minillm.kernels.rope import rope
from minillm.kernels.swiglu import swiglu
from minillm.layer_kv import LayerKV
from tests.kernels.cases_paged import normal, poisoned
from tests.kernels.offline import Launch


def distance(out: Tensor, expected: Tensor) -> float:
    """By norm, from float64."""
    assert expected.dtype == torch.float64 and out.shape == expected.shape and out.is_contiguous()
    return ((out.cpu().double() - expected).norm() / expected.norm()).item()


def norm64(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.cpu().double()
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight.cpu().double()


def norm(
    shape: tuple[int, ...], *, extra: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> float:
    """x is a part of rows that are `extra` heads wider."""
    t, *middle, n = shape
    wide = (t, middle[0] + extra, n) if middle else (t, n + extra)
    x = normal(*wide, seed=1, dtype=dtype, device=device)
    x = x[:, : middle[0]] if middle else x[:, :n]
    weight = normal(n, seed=2, dtype=dtype, device=device)
    with poisoned():
        out = rms_norm(x, weight, 1e-3)
    assert out.dtype == dtype
    return distance(out, norm64(x, weight, 1e-3))


def add_norm(num_tokens: int, n: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> float:
    x, residual = (normal(num_tokens, n, seed=s, dtype=dtype, device=device) for s in (1, 2))
    weight = normal(n, seed=3, dtype=dtype, device=device)
    before = residual.clone()
    with poisoned():
        out, total = add_rms_norm(x, residual, weight, 1e-3)
    assert torch.equal(residual, before) and out.dtype == total.dtype == dtype
    if dtype != torch.bfloat16 or device != "cpu":  # there the interpreter truncates where hardware rounds
        assert torch.equal(total, x + before)
    return distance(out, norm64(total, weight, 1e-3))


def turn(
    num_tokens: int, heads: int, head_dim: int, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> float:
    """q and k are turned together, a part of the rows that also hold v; all four quarters of cos and sin differ."""
    x = normal(num_tokens, heads + 2, head_dim, seed=1, dtype=dtype, device=device)[:, :heads]
    cos, sin = (normal(num_tokens, 1, head_dim, seed=s, dtype=dtype, device=device) for s in (2, 3))
    with poisoned():
        out = rope(x, cos, sin)
    x64, cos64, sin64 = (a.cpu().double() for a in (x, cos, sin))
    left, right = x64.chunk(2, -1)
    assert out.dtype == dtype
    return distance(out, x64 * cos64 + torch.cat((right, left), -1) * sin64)


def gate(
    num_tokens: int, m: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> float:
    x = (scale * normal(num_tokens, 2 * m + 8, seed=1, dtype=dtype, device=device))[:, : 2 * m]
    with poisoned():
        out = swiglu(x)
    gate64, up64 = x.cpu().double().chunk(2, -1)
    assert out.dtype == dtype
    return distance(out, gate64 * gate64.sigmoid() * up64)


def write(
    *,
    num_tokens: int = 9,
    heads: int = 3,
    head_dim: int = 20,
    dtype: torch.dtype = torch.float32,
    kv_dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> None:
    """Every other token's slot is -1, and no slot is touched but the others'; the zeros of one head stay zeros."""
    wide = normal(num_tokens, 2 * heads + 1, head_dim, seed=1, dtype=dtype, device="cpu")
    if kv_dtype == torch.float8_e4m3fn and device == "cpu":
        # The interpreter rounds to fp8 without the carry (127 becomes 64), so it is given what needs no rounding.
        wide = (wide.clamp(-4, 4) * 100).to(kv_dtype).to(dtype)
        wide[wide.abs() < 2**-6] = 0
        wide[..., 0] = 448
    wide[0, 1] = 0
    k, v = wide.to(device)[:, 1 : 1 + heads], wide.to(device)[:, 1 + heads :]
    slots = torch.randperm(4 * num_tokens, generator=torch.Generator().manual_seed(2))[:num_tokens]
    slots[1::2] = -1
    cache_dtype = kv_dtype or dtype
    filler = torch.full(
        (4 * num_tokens, heads, head_dim), math.nan if cache_dtype.is_floating_point else -128.0
    )
    filler, no_scale = filler.to(cache_dtype), torch.full((4 * num_tokens, heads), math.nan)
    blocks = (num_tokens, 4, heads)
    fillers = [filler.view(*blocks, head_dim)] * 2 + [no_scale.view(blocks)] * (2 if kv_dtype else 0)
    kernel, definition = (LayerKV(*(x.to(device, copy=True) for x in fillers)) for _ in range(2))
    write_kv(k, v, kernel, slots.to(device))
    ops.write_kv(k[::2], v[::2], definition, slots[::2].to(device))
    for found, expected in zip(kernel.tensors, definition.tensors, strict=True):
        assert torch.equal(found.float().nan_to_num(-1), expected.float().nan_to_num(-1))


def _shipped(name: str) -> Any:
    """A call of the size of an 8B model, on `meta`."""

    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    match name:
        case "rms_norm":
            return rms_norm(meta(64, 4096), meta(4096), 1e-5)
        case "rms_norm of the longest row":
            return rms_norm(meta(64, 32_768, dtype=torch.float32), meta(32_768), 1e-5)
        case "rms_norm of heads":
            return rms_norm(meta(64, 48, 128)[:, :32], meta(128), 1e-5)
        case "add_rms_norm":
            return add_rms_norm(meta(64, 4096), meta(64, 4096), meta(4096), 1e-5)
        case "rope":
            return rope(meta(64, 48, 128)[:, :40], meta(64, 1, 128), meta(64, 1, 128))
        case "swiglu":
            return swiglu(meta(64, 28_672))
    kv_dtype = {"write_kv": torch.bfloat16, "write_kv int8": torch.int8, "write_kv fp8": torch.float8_e4m3fn}[
        name
    ]
    kv = LayerKV.empty((16, 16, 8, 128), kv_dtype, "meta")
    heads, slots = meta(64, 48, 128), meta(64, dtype=torch.int64)
    return write_kv(heads[:, 32:40], heads[:, 40:], kv, slots)


LAUNCHES = [
    Launch(
        name,
        _shipped,
        {"name": name},
        dots=False,
        max_loads=max_loads,
        architectures=architectures,
        slow=name not in ("rms_norm", "swiglu"),
    )
    for name, max_loads, architectures in [
        ("rms_norm", 4, (80, 90)),
        ("rms_norm of the longest row", 24, (80, 90)),
        ("rms_norm of heads", 4, (80, 90)),
        ("add_rms_norm", 6, (80, 90)),
        ("rope", 6, (80, 90)),
        ("swiglu", 2, (80, 90)),
        ("write_kv", 5, (80, 90)),
        ("write_kv int8", 5, (80, 90)),
        ("write_kv fp8", 5, (90,)),
    ]
]

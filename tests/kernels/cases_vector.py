"""The smallest kernel there is, to try the harness itself on."""

import os

import torch
import triton
import triton.language as tl


@triton.jit
def add_one(x, out, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)


@triton.jit
def spill(a, b, out, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """A matrix product whose accumulator alone needs twice the registers that a thread can have."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    c = tl.dot(tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :]))
    tl.store(out + m[:, None] * N + n[None, :], c)


def add(n: int, device: str = "cpu") -> float:
    x = torch.arange(n, dtype=torch.float32, device=device)
    out = torch.full_like(x, float("nan"))
    add_one[(triton.cdiv(n, 8),)](x, out, n, BLOCK=8)
    return (out - x).mean().item() if device != "meta" else 0.0


def launch_spilling() -> None:
    a, b, out = (torch.empty(n, dtype=torch.float16, device="meta") for n in (256 * 16, 16 * 256, 256 * 256))
    spill[(1,)](a, b, out, M=256, N=256, K=16, num_warps=4)


def where() -> int:
    return os.getpid()


def fail(what: str) -> None:
    print("words on stdout, which answers go through")
    raise ValueError(what)


def unpicklable() -> object:
    return lambda: None


def die() -> None:
    os._exit(3)


def hang() -> None:
    import time

    time.sleep(60)

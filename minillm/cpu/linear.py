"""The matrix product y = x W + b in float32 on x86 processors other than Intel's.

PyTorch computes it with MKL there, which is tuned for Intel: MKL reads the matrix of a single token with one core, and
is slow for a few tokens. This file uses two other ways:

    one token       split-K: cut W along `in` into one part per core, multiply them as a batch, add the results
    several tokens  oneDNN, which PyTorch also contains, compiles a product for the exact shape

Split-K comes from GPUs: when the result is too small to divide among the cores, divide the sum.
`benchmarks/cpu_linear.py` compares the ways.
"""

import math
import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

# oneDNN compiles a product for each number of rows, in about 0.4 ms, and keeps 1,024 of them. Prompts are cut into
# parts of at most this many rows, so that prompts of all lengths share the same few products.
ROWS_AT_ONCE = 64

CPUINFO = Path("/proc/cpuinfo")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `ops.linear`. Weights in other dtypes and layouts than contiguous float32 use PyTorch's product."""
    num_rows, size_in = x.shape
    num_parts = math.gcd(size_in, torch.get_num_threads())
    if (num_rows == num_parts == 1) or weight.dtype != torch.float32 or not weight.is_contiguous():
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    if num_rows == 1:
        return split_k(x, weight, bias, num_parts)
    if num_rows <= ROWS_AT_ONCE:
        return one_dnn(x, weight, bias)
    return torch.cat([one_dnn(rows, weight, bias) for rows in x.split(ROWS_AT_ONCE)])


def split_k(x: Tensor, weight: Tensor, bias: Tensor | None, num_parts: int) -> Tensor:
    """Multiply one row x [1, in] by a contiguous weight [in, out], with `in` cut into `num_parts` equal parts."""
    size = len(weight) // num_parts
    y = torch.bmm(x.reshape(num_parts, 1, size), weight.view(num_parts, size, -1)).sum(0)  # [1, out]
    return y if bias is None else y.add_(bias)


def one_dnn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x [T, in] by weight [in, out] with oneDNN, which takes the weight as [out, in]."""
    # PyTorch has no public name for this product. Its compiler calls the same one.
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight.t(), bias, "none", [], "")
    return y


def is_faster_here() -> bool:
    """Return whether this processor is one that `linear` is for, and whether PyTorch was built with oneDNN."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and not _is_intel()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in CPUINFO.read_text()
    except OSError:  # not Linux
        return "GenuineIntel" in platform.processor()

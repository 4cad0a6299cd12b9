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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

# oneDNN compiles a product for each number of rows, in about 0.4 ms, and keeps 1,024 of them. Prompts are cut into
# parts of at most this many rows, so that prompts of all lengths share the same few products.
ROWS_AT_ONCE = 64

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Views:
    """The memory of a contiguous weight [in, out] in the shapes that the two ways need."""

    parts: Tensor  # [parts, in / parts, out], at most one part per core
    transposed: Tensor  # [out, in]

    @classmethod
    def of_weight(cls, weight: Tensor) -> "Views":
        size_in, size_out = weight.shape
        num_parts = math.gcd(size_in, torch.get_num_threads())
        # The weight keeps its views. Views of `weight` itself would refer back to it, and none would ever be freed.
        memory = weight.detach()
        return cls(memory.view(num_parts, size_in // num_parts, size_out), memory.t())


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `ops.linear`. Weights in other dtypes and layouts than contiguous float32 use PyTorch's product.

    The first call keeps views of the weight as an attribute of it: making them takes 3 % of a small model's step.
    """
    views: Views | None = vars(weight).get("views")
    if views is None:
        if weight.dtype != torch.float32 or not weight.is_contiguous():
            return x @ weight if bias is None else torch.addmm(bias, x, weight)
        views = vars(weight)["views"] = Views.of_weight(weight)
    num_rows = x.shape[0]
    if num_rows == 1:
        return split_k(x, views.parts, bias)
    if num_rows <= ROWS_AT_ONCE:
        return one_dnn(x, views.transposed, bias)
    return torch.cat([one_dnn(rows, views.transposed, bias) for rows in x.split(ROWS_AT_ONCE)])


def split_k(x: Tensor, parts: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply one row x [1, in] by a weight in parts [parts, in / parts, out]."""
    num_parts, size, _ = parts.shape
    if num_parts == 1:
        y = x @ parts[0]  # [1, out]
    else:
        y = torch.bmm(x.reshape(num_parts, 1, size), parts).sum(0)
    return y if bias is None else y.add_(bias)


def one_dnn(x: Tensor, transposed: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x [T, in] by a weight as oneDNN takes it, [out, in]."""
    # PyTorch has no public name for this product. Its compiler calls the same one.
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, transposed, bias, "none", [], "")
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

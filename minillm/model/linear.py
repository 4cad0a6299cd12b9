"""The matrix product y = x W + b: nine tenths of a model's arithmetic, and of the bytes that a token waits for.

PyTorch's own product is the one to use on a GPU, and on most processors. On x86 its float32 product is MKL's, which is
at its best on Intel's processors only: on others it reads the matrix of a lone token with one core, and is slow for a
few tokens. There, `CpuLinear` goes two other ways:

    one token    W is cut along `in` into one part for each core: a batch of small products, whose results are added
    several      oneDNN, which PyTorch carries too, compiles a product for the very shape

The first is split-K, known from GPUs: where the result is too small to share out among the cores, share out the sum.
`benchmarks/cpu_linear.py` compares the ways.
"""

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]  # [T, in] -> [T, out]: a Linear, or what takes its place

# oneDNN compiles for each number of rows, some 0.4 ms at first use, and keeps 1,024 products. Cut into stretches of at
# most so many rows, prompts of all lengths share these few.
ROWS_AT_ONCE = 64

CPUINFO = Path("/proc/cpuinfo")


@dataclass(slots=True)
class Linear:
    """y = x W + b. `weight` has the shape [in, out]; its memory runs whichever way the device reads faster."""

    weight: Tensor
    bias: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)


@dataclass(slots=True)
class CpuLinear(Linear):
    """The same in float32 on x86 that is not Intel's."""

    parts: Tensor = field(init=False)  # the weight's own memory as [cores, in / cores, out]

    def __post_init__(self) -> None:
        size_in, size_out = self.weight.shape
        cores = math.gcd(size_in, torch.get_num_threads())
        self.parts = self.weight.view(cores, size_in // cores, size_out)

    def __call__(self, x: Tensor) -> Tensor:
        num_rows = x.shape[0]
        if num_rows == 1:
            return self._one(x)
        if num_rows <= ROWS_AT_ONCE:
            return self._several(x)
        return torch.cat([self._several(rows) for rows in x.split(ROWS_AT_ONCE)])

    def _one(self, x: Tensor) -> Tensor:
        cores, size, _ = self.parts.shape
        y = torch.bmm(x.reshape(cores, 1, size), self.parts).sum(0)  # [1, out]
        return y if self.bias is None else y.add_(self.bias)

    def _several(self, x: Tensor) -> Tensor:
        # What PyTorch's compiler calls, for want of a public name; it takes the weight as [out, in].
        y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, self.weight.t(), self.bias, "none", [], "")
        return y


def linear_for(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The faster of the two for where `weight` [in, out] lies."""
    if (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and platform.machine() in ("x86_64", "AMD64")
        and not _is_intel()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return CpuLinear(weight, bias)
    return Linear(weight, bias)


@cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in CPUINFO.read_text()
    except OSError:  # no Linux
        return "GenuineIntel" in platform.processor()

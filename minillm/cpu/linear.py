"""The matrix product y = x W + b in float32 on x86 processors: for one token, for a few, and for many.

One token reads W once, and so do a few tokens (a small batch, or drafts to verify): they should cost the same.
PyTorch's own product, MKL, needs twice the time for 2 or 3 tokens. It is also tuned for Intel: on other processors it
reads the matrix of a single token with one core, and is slow for a batch. This file has two other ways:

    one token   split-K: cut W along `in` into one part per core, multiply them as a batch, add the results
    few tokens  oneDNN, which PyTorch also contains, compiles a product for the exact shape, over a packed copy of W

Split-K comes from GPUs: when the result is too small to divide among the cores, divide the sum. Packing puts the
numbers of W in the order in which the product reads them, so a few tokens read it as fast as one token.
`benchmarks/cpu_linear.py` compares the ways.
"""

import math
import platform
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from minillm.measure.memory import available_bytes

# oneDNN compiles a product for each number of rows, in about 0.4 ms, and keeps 1,024 of them. Prompts are cut into
# parts of at most this many rows, so that prompts of all lengths share the same few products.
ROWS_AT_ONCE = 64

# A packed copy needs the memory of its weight again. None is made if less than this stays free.
KEPT_FREE = 2 * 2**30

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Forms:
    """A contiguous weight [in, out] as the two ways need it. `parts` and `transposed` are views of its memory.

    `packed` is a copy in oneDNN's own order. It is None if memory is short, or if PyTorch cannot tell when the weight
    changes; `version` is PyTorch's count of the changes.
    """

    parts: Tensor  # [parts, in / parts, out], at most one part per core
    transposed: Tensor  # [out, in]
    packed: Tensor | None
    version: int

    @classmethod
    def of_weight(cls, weight: Tensor) -> "Forms":
        size_in, size_out = weight.shape
        num_parts = math.gcd(size_in, torch.get_num_threads())
        memory = weight.detach()
        transposed = memory.t()
        packed, version = None, 0
        if not weight.is_inference():
            version = weight._version
            if available_bytes() - weight.nbytes >= KEPT_FREE:
                packed = torch.ops.mkldnn._reorder_linear_weight(transposed, ROWS_AT_ONCE)
        return cls(memory.view(num_parts, size_in // num_parts, size_out), transposed, packed, version)

    def fit(self, weight: Tensor) -> bool:
        """Return whether the weight is still the one that was packed."""
        return self.packed is None or self.version == weight._version


_forms: dict[int, Forms] = {}  # by the id of each living weight


def forms_of(weight: Tensor) -> Forms | None:
    """Return the forms of a contiguous float32 weight, made at the first call; None for other dtypes and layouts."""
    forms = _forms.get(id(weight))
    if forms is not None and forms.fit(weight):
        return forms
    if weight.dtype != torch.float32 or not weight.is_contiguous() or weight.device.type != "cpu":
        return None
    if forms is None:
        weakref.finalize(weight, _forms.pop, id(weight), None)
    forms = _forms[id(weight)] = Forms.of_weight(weight)
    return forms


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `ops.linear`. Weights in other dtypes and layouts than contiguous float32 use PyTorch's product."""
    forms = forms_of(weight)
    if forms is None:
        return _pytorchs(x, weight, bias)
    num_rows = x.shape[0]  # ten times as fast as len(x)
    if num_rows == 1:
        return split_k(x, forms.parts, bias)
    if num_rows <= ROWS_AT_ONCE:
        return few_rows(x, forms, bias)
    return torch.cat([few_rows(rows, forms, bias) for rows in x.split(ROWS_AT_ONCE)])


def linear_on_intel(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `ops.linear`: `few_rows` for 2 to 64 rows, and PyTorch's product for all others."""
    forms = forms_of(weight) if 1 < x.shape[0] <= ROWS_AT_ONCE else None
    return _pytorchs(x, weight, bias) if forms is None else few_rows(x, forms, bias)


def split_k(x: Tensor, parts: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply one row x [1, in] by a weight in parts [parts, in / parts, out]."""
    num_parts, size, _ = parts.shape
    if num_parts == 1:
        y = x @ parts[0]  # [1, out]
    else:
        y = torch.bmm(x.reshape(num_parts, 1, size), parts).sum(0)
    return y if bias is None else y.add_(bias)


def few_rows(x: Tensor, forms: Forms, bias: Tensor | None) -> Tensor:
    """Multiply x [T, in], with 1 < T <= ROWS_AT_ONCE."""
    if forms.packed is None:
        return one_dnn(x, forms.transposed, bias)
    if x.shape[0] == 2:  # oneDNN has a slower way for two rows than for three
        return one_dnn(torch.cat([x, x[:1]]), forms.packed, bias)[:2]
    return one_dnn(x, forms.packed, bias)


def one_dnn(x: Tensor, transposed: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x [T, in] by a weight as oneDNN takes it, [out, in], packed or not."""
    # PyTorch has no public name for this product. Its compiler calls the same one.
    y: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, transposed, bias, "none", [], "")
    return y


def _pytorchs(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


def is_faster_here() -> bool:
    """Return whether this processor is one that this file is for, and whether PyTorch was built with oneDNN."""
    return (
        platform.machine() in ("x86_64", "AMD64")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@cache
def is_intel() -> bool:
    try:
        return "GenuineIntel" in CPUINFO.read_text()
    except OSError:  # not Linux
        return "GenuineIntel" in platform.processor()

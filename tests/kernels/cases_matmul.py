"""The products with packed weights: cases to run interpreted or on a GPU, and launches to compile.

All that a kernel must not look at is poison: x is a part of rows that are NaN elsewhere, and fresh memory is NaN.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from minillm import ops
from minillm.kernels import int8_matmul, packed_matmul
from minillm.kernels.int4_matmul import int4_matmul
from minillm.kernels.int8_matmul import quantise_tokens
from minillm.kernels.split_k import Config, Splits
from minillm.packed import QuantizedWeight
from tests.kernels.cases_paged import normal, poisoned
from tests.kernels.offline import Launch

MATMULS = {
    "int4": int4_matmul,
    "int8": int8_matmul.int8_matmul,
    "fp8": int8_matmul.fp8_matmul,
    "w8a8": int8_matmul.w8a8_matmul,
}
Shape = tuple[int, int, int]  # tokens, out, in


def part_of_rows(x: Tensor) -> Tensor:
    """The same values as a part of wider rows, with NaN on both sides."""
    wide = torch.full((x.shape[0], x.shape[1] + 5), math.nan, dtype=x.dtype, device=x.device)
    wide[:, 2:-3] = x
    return wide[:, 2:-3]


def weight_of(
    kind: str,
    size_out: int,
    size_in: int,
    group_size: int | None = None,
    symmetric: bool = True,
    scale_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> QuantizedWeight:
    """Every number of the format, scales from 1e-3 to 10, and zeros that are no integers."""
    generator = torch.Generator().manual_seed(size_out + size_in)
    groups = size_in // (group_size or size_in)
    columns = size_in // 2 if kind == "int4" else size_in
    numbers = torch.randint(0, 256, (size_out, columns), dtype=torch.uint8, generator=generator)
    if kind == "fp8":
        numbers[(numbers & 127) == 127] = 0  # these two are NaN
        numbers = numbers.view(torch.float8_e4m3fn)
    elif kind != "int4":
        numbers = numbers.view(torch.int8)
    scale = 10 ** (4 * torch.rand(size_out, groups, generator=generator) - 3)
    zero = None if symmetric else 16 * torch.rand(size_out, groups, generator=generator)
    tensors = (numbers, scale.to(scale_dtype), zero)
    return QuantizedWeight(*(x if x is None else x.to(device) for x in tensors))


@contextmanager
def splitting(allowed: bool) -> Iterator[None]:
    """One program takes all columns of a tile if splitting is not allowed."""
    with ExitStack() as stack:
        for module in (packed_matmul, int8_matmul):
            if not allowed:
                unsplit = patch.object(module, "choose_splits", lambda _, steps, wanted: Splits(1, steps))
                stack.enter_context(unsplit)
        yield


def bias_of(size_out: int, dtype: torch.dtype, device: str) -> Tensor:
    return normal(size_out, seed=3, dtype=dtype, device=device)


def product(
    kind: str,
    shape: Shape,
    *,
    group_size: int | None = None,
    symmetric: bool = True,
    bias: bool = True,
    x_scale: float = 1.0,
    split: bool = True,
    dtype: torch.dtype = torch.float32,
    scale_dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> float:
    """The largest distance of any output from float64, by norm over the tokens, relative to the size of its terms."""
    num_tokens, size_out, size_in = shape
    weight = weight_of(kind, size_out, size_in, group_size, symmetric, scale_dtype, device)
    x = part_of_rows(x_scale * normal(num_tokens, size_in, seed=1, dtype=dtype, device=device))
    b = bias_of(size_out, dtype, device) if bias else None
    with poisoned(), splitting(split):
        out = MATMULS[kind](x, weight, b)
    assert out.dtype == dtype and out.shape == (num_tokens, size_out) and out.is_contiguous()
    x64, w64 = x.cpu().double(), weight64(weight)
    b64 = torch.zeros(size_out) if b is None else b.cpu().double()
    error = out.cpu().double() - (x64 @ w64.t() + b64)
    terms = (x64**2 @ w64.t() ** 2 + b64**2).sqrt()
    return (error.norm(dim=0) / terms.norm(dim=0)).max().item()


def weight64(weight: QuantizedWeight) -> Tensor:
    """The matrix of a weight, in float64."""
    q = weight.unpacked().cpu().float().double().unflatten(1, (-1, weight.group_size))
    middle = 8.0 if weight.bits == 4 else 0.0
    zero = middle if weight.zero is None else weight.zero.cpu().double()[..., None]
    return ((q - zero) * weight.scale.cpu().double()[..., None]).flatten(1)


def unpacked_numbers(kind: str, dtype: torch.dtype, device: str = "cpu") -> None:
    """The product with an identity is the weight itself, number by number, if the scales are one."""
    size = 256
    numbers = torch.arange(256, dtype=torch.uint8)
    if kind == "fp8":
        numbers[(numbers & 127) == 127] = 0
    rows = numbers.repeat(2, 1) if kind != "int4" else numbers[:128].repeat(2, 1)
    if kind == "int4":
        rows[1] += 128
    view = {"int4": torch.uint8, "int8": torch.int8, "fp8": torch.float8_e4m3fn}[kind]
    weight = QuantizedWeight(rows.view(view).to(device), torch.ones(2, 1, device=device))
    out = MATMULS[kind](torch.eye(size, dtype=dtype, device=device), weight, None)
    assert torch.equal(out.t().cpu().double(), weight64(weight))


def against_the_definition(
    shape: Shape, dtype: torch.dtype = torch.float32, bias: bool = True, device: str = "cpu"
) -> bool:
    """Whether W8A8 is `ops.w8a8_matmul` bit for bit: sums of integers have no order."""
    num_tokens, size_out, size_in = shape
    weight = weight_of("w8a8", size_out, size_in, device=device)
    x = part_of_rows(normal(num_tokens, size_in, seed=1, dtype=dtype, device=device))
    b = bias_of(size_out, dtype, device) if bias else None
    with poisoned():
        out = MATMULS["w8a8"](x, weight, b)
    return torch.equal(out, ops.w8a8_matmul(x, weight, b))


def fp8_against_the_definition(shape: Shape, device: str = "cpu") -> float:
    """The largest difference of W8A8 in FP8 from `ops.w8a8_fp8_matmul`, as a share of the largest result."""
    num_tokens, size_out, size_in = shape
    weight = weight_of("fp8", size_out, size_in, device=device)
    x = normal(num_tokens, size_in, seed=1, dtype=torch.float32, device=device)
    x[-1] = 0
    b = bias_of(size_out, torch.float32, device)
    wanted = ops.w8a8_fp8_matmul(x, weight, b)
    return float((int8_matmul.w8a8_fp8_matmul(x, weight, b) - wanted).abs().max() / wanted.abs().max())


def largest_sums(device: str = "cpu") -> None:
    """Sums of integers that float32 cannot hold are exact to the last step."""
    size_in = 2048
    numbers = torch.full((3, size_in), -128, dtype=torch.int8, device=device)
    numbers[1:, ::2] = 127
    numbers[2, 0] = 126
    weight = QuantizedWeight(numbers, torch.ones(3, 1, device=device))
    x = torch.full((1, size_in), -1.0, device=device)  # quantised to -128 in every place
    sums = (MATMULS["w8a8"](x, weight, None).double() * 127.5).round().long().tolist()[0]
    quantised, _ = ops.quantise_tokens(x, torch.int8)
    right = (quantised.long() @ numbers.t().long()).tolist()[0]
    assert [abs(a - b) <= abs(b) * 2**-22 for a, b in zip(sums, right, strict=True)] == [True] * 3


def tokens_are_quantised(dtype: torch.dtype, device: str = "cpu") -> None:
    """Numbers and scales are those of `ops.quantise_tokens`, ties, zeros and outliers included; NaN stays."""
    x = normal(7, 50, seed=1, dtype=dtype, device=device)
    x[1] = 0
    x[2] = torch.arange(-25, 25) / 2  # its ties are at half a step
    x[2, 0] = 127.5
    x[3, 4] = -1000
    x[4, :2] = torch.tensor([5.0, -5.0])
    x[5] *= 1e-4
    found, right = quantise_tokens(part_of_rows(x)), ops.quantise_tokens(x, torch.int8)
    assert found[0].stride() == (64, 1)
    assert torch.equal(found[0], right[0]) and torch.equal(found[1], right[1])
    x[6, 7] = math.nan
    scale = quantise_tokens(x)[1]
    assert scale[6].isnan() and not scale[:6].isnan().any()


def a_nan_is_seen(kind: str, device: str = "cpu") -> None:
    """A token with a NaN has only NaN, and its neighbours have none."""
    x = normal(3, 64, seed=1, dtype=torch.float32, device=device)
    x[1, 5] = math.nan
    out = MATMULS[kind](x, weight_of(kind, 20, 64, device=device), None)
    assert out.isnan().all(1).tolist() == [False, True, False] and not out[::2].isnan().any()


def split_against_unsplit(kind: str, device: str = "cpu") -> float:
    """The distance, by norm, between one split and as many as an H100 needs; each twice the same."""
    weight = weight_of(kind, 64, 1024, None if kind == "w8a8" else 128, device=device)
    x = normal(2, 1024, seed=1, dtype=torch.float16, device=device).float()
    x = x if kind == "w8a8" else x.half()
    outs = []
    for allowed in (True, False):
        with poisoned(), splitting(allowed):
            twice = [MATMULS[kind](x, weight, None) for _ in range(2)]
        assert torch.equal(*twice)
        outs.append(twice[0].double())
    return ((outs[0] - outs[1]).norm() / outs[1].norm()).item()


# Sizes on both sides of the tiles: 16, 64 or 128 tokens, 64 or 128 outputs, 128 columns (32 in float32).
CASES: dict[str, dict[str, Any]] = {
    **{
        f"{kind}, {name}": {"kind": kind, **case}
        for kind in ("int4", "int8", "fp8")
        for name, case in {
            "one token": {"shape": (1, 64, 256)},
            "groups of 128": {"shape": (3, 70, 384), "group_size": 128},
            "groups of 64": {"shape": (2, 65, 192), "group_size": 64},
            "groups of 32": {"shape": (2, 33, 96), "group_size": 32},
            "groups of 16": {"shape": (2, 17, 80), "group_size": 16},
            "groups of 256": {"shape": (2, 17, 512), "group_size": 256},
            "odd groups": {"shape": (2, 17, 90), "group_size": 15},
            "groups inside a word": {"shape": (2, 17, 36), "group_size": 3},
            "one row": {"shape": (5, 1, 144)},
            "many splits": {"shape": (1, 20, 2000)},
            "no bias": {"shape": (2, 30, 64), "bias": False},
            "17 tokens": {"shape": (17, 33, 130)},
            "tiny x": {"shape": (2, 30, 64), "x_scale": 1e-3, "bias": False},
        }.items()
    },
    **{
        f"{kind}, zeros{name}": {"kind": kind, "symmetric": False, **case}
        for kind in ("int4", "int8")
        for name, case in {
            "": {"shape": (2, 33, 100)},
            ", groups of 128": {"shape": (2, 33, 256), "group_size": 128},
            ", odd groups": {"shape": (2, 17, 90), "group_size": 15},
            ", groups one after the other": {"shape": (2, 17, 640), "group_size": 128, "split": False},
            ", tiles of groups": {"shape": (2, 17, 768), "group_size": 256, "split": False},
            ", odd groups one after the other": {"shape": (2, 17, 90), "group_size": 15, "split": False},
        }.items()
    },
    "int8, odd in": {"kind": "int8", "shape": (3, 21, 33)},
    "fp8, odd in": {"kind": "fp8", "shape": (3, 21, 33)},
    "int4, rows of odd bytes": {"kind": "int4", "shape": (3, 21, 50)},
    "int4, bfloat16 scales": {"kind": "int4", "shape": (3, 21, 64), "scale_dtype": torch.bfloat16},
}
W8A8: list[Shape] = [(1, 64, 256), (3, 70, 33), (2, 1, 130), (1, 30, 2000), (17, 5, 144)]


def _shipped(
    kind: str,
    num_tokens: int,
    group_size: int | None = None,
    zero: bool = False,
    dtype: torch.dtype = torch.bfloat16,
) -> Tensor:
    """A product of an 8B model, on `meta`."""
    size_out = size_in = 4096

    def meta(*shape: int, of: torch.dtype = dtype) -> Tensor:
        return torch.empty(shape, dtype=of, device="meta")

    numbers = {"int4": torch.uint8, "fp8": torch.float8_e4m3fn}.get(kind, torch.int8)
    scale = (size_out, size_in // (group_size or size_in))
    columns = size_in // 2 if kind == "int4" else size_in
    weight = QuantizedWeight(
        meta(size_out, columns, of=numbers), meta(*scale), meta(*scale) if zero else None
    )
    return MATMULS[kind](meta(num_tokens, size_in), weight, meta(size_out))


def without_prefetch() -> Tensor:
    """W4A16 with two stages, which leave room for one tile: the next one is copied when this one is done."""
    config = Config(16, 64, 128, num_warps=4, num_stages=2, programs_per_sm=3)
    with patch.dict(packed_matmul.CONFIGS, {(2, 16): config}):
        return _shipped("int4", 1, 128)


LAUNCHES = [
    Launch(
        f"{name}, {num_tokens} tokens",
        _shipped,
        {"num_tokens": num_tokens, **call},
        prefetch=True,
        least_blocks=3 if num_tokens == 1 else 1,
        without_dots=frozenset({"_add_up", "_quantise"}),
        max_loads=max_loads,
        slow=(name, num_tokens) not in [("W4A16", 1), ("W8A16", 1), ("W8A8", 2048)],
    )
    for name, call in {
        "W4A16": {"kind": "int4", "group_size": 128},
        "W4A16 with zeros": {"kind": "int4", "group_size": 128, "zero": True},
        "W4A16, groups of 32": {"kind": "int4", "group_size": 32},
        "W4A16, float16": {"kind": "int4", "group_size": 128, "dtype": torch.float16},
        "W8A16": {"kind": "int8"},
        "W8A16 with zeros": {"kind": "int8", "zero": True},
        "W8A16 in fp8": {"kind": "fp8"},
        "W8A8": {"kind": "w8a8"},
    }.items()
    for num_tokens, max_loads in ((1, 24), (64, 40), (2048, 80))
] + [
    Launch(
        "W4A16, float32",
        _shipped,
        {"kind": "int4", "num_tokens": 1, "group_size": 128, "dtype": torch.float32},
        dots=False,
        max_loads=24,
        slow=True,
    )
]

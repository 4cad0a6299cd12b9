"""Products with packed weights against float64, in every format and shape, and what their launchers refuse."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.kernels.int4_matmul import INT4
from minillm.kernels.int8_matmul import INT8, quantise_tokens
from minillm.kernels.split_k import MAX_SPLITS, Splits, choose_splits
from minillm.packed import QuantizedWeight
from tests.kernels import cases_matmul
from tests.kernels.cases_matmul import CASES, MATMULS, W8A8, weight_of
from tests.kernels.offline import Compiled

DTYPES = pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 1e-3)])
# The forms that differ most, for `make check`; the others are left to `make test`.
QUICK = {
    "int4, odd groups",
    "int4, zeros, groups one after the other",
    "int4, many splits",
    "int8, one token",
    "fp8, odd in",
}
KINDS = pytest.mark.parametrize("kind", MATMULS)


@DTYPES
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_each_output_is_float64_to_rounding(
    interpreted: Callable[..., Any], name: str, dtype: torch.dtype, limit: float
) -> None:
    assert interpreted(cases_matmul.product, **CASES[name], dtype=dtype) <= limit


@pytest.mark.parametrize("kind", ["int4", "int8", "fp8"])
def test_every_number_of_a_format_is_unpacked_exactly(interpreted: Callable[..., Any], kind: str) -> None:
    interpreted(cases_matmul.unpacked_numbers, kind, torch.float16)


def test_bfloat16_holds_the_same_numbers() -> None:
    """The interpreter cannot compute in bfloat16, so the bits that the kernels make are looked at in torch."""

    def bfloat16(bits: torch.Tensor) -> torch.Tensor:
        return bits.to(torch.int16).view(torch.bfloat16)

    codes = torch.arange(256)
    int4, int8 = (form.magic[1] & 0xFFFF for form in (INT4, INT8))
    assert all(form.magic[1] >> 16 == form.magic[1] & 0xFFFF for form in (INT4, INT8))
    assert bfloat16(int4 | codes[:16]).sub(136).tolist() == list(range(-8, 8))
    signed = bfloat16(int8 | (codes & 127)) - bfloat16(int8 | (codes & 128))
    assert signed.tolist() == codes.to(torch.uint8).view(torch.int8).tolist()
    fp8 = bfloat16(((codes & 128) << 8) | ((codes & 127) << 4)) * 2.0**120
    right = codes.to(torch.uint8).view(torch.float8_e4m3fn).bfloat16()
    assert torch.equal(fp8[codes & 127 != 127], right[codes & 127 != 127])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_more_tokens_than_a_tile_has(interpreted: Callable[..., Any], kind: str) -> None:
    assert interpreted(cases_matmul.product, kind, (130, 5, 64), dtype=torch.float16) <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", W8A8)
def test_w8a8_is_the_definition_bit_for_bit(
    interpreted: Callable[..., Any], shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    assert interpreted(cases_matmul.against_the_definition, shape, dtype)
    assert interpreted(cases_matmul.against_the_definition, shape, dtype, bias=False)


def test_w8a8_adds_up_the_largest_integers(interpreted: Callable[..., Any]) -> None:
    interpreted(cases_matmul.largest_sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_tokens_are_quantised_as_torch_does(interpreted: Callable[..., Any], dtype: torch.dtype) -> None:
    interpreted(cases_matmul.tokens_are_quantised, dtype)


@pytest.mark.parametrize("shape", [(1, 8, 64), (5, 33, 96)])
def test_both_sides_in_fp8(interpreted: Callable[..., Any], shape: tuple[int, int, int]) -> None:
    assert interpreted(cases_matmul.fp8_against_the_definition, shape) < 1e-5


@KINDS
def test_a_nan_is_seen(interpreted: Callable[..., Any], kind: str) -> None:
    interpreted(cases_matmul.a_nan_is_seen, kind)


@KINDS
def test_splits_do_not_change_the_result(interpreted: Callable[..., Any], kind: str) -> None:
    assert interpreted(cases_matmul.split_against_unsplit, kind) <= (0 if kind == "w8a8" else 1e-3)


@KINDS
def test_no_tokens(kind: str) -> None:
    assert MATMULS[kind](torch.empty(0, 32), weight_of(kind, 8, 32), None).shape == (0, 8)


@pytest.mark.parametrize(
    ("size_out", "size_in"), [(4096, 4096), (14_336, 4096), (4096, 14_336), (6144, 4096), (28_672, 4096)]
)
def test_one_token_has_three_programs_for_each_multiprocessor(size_out: int, size_in: int) -> None:
    """The shapes of an 8B model on an H100: all steps have a program, and no program is without steps."""
    tiles, steps = size_out // 64, size_in // 128
    splits = choose_splits(tiles, steps, wanted=3 * 132)
    assert tiles * splits.number >= 3 * 132
    assert (splits.number - 1) * splits.steps < steps <= splits.number * splits.steps


def test_splits_have_limits() -> None:
    assert choose_splits(1000, 32, wanted=396) == Splits(1, 32)
    assert choose_splits(1, 2, wanted=396) == Splits(2, 1)
    assert choose_splits(1, 1000, wanted=396).number <= MAX_SPLITS


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_the_gate_sees_a_loop_that_does_not_prefetch(
    compiled: Callable[..., list[Compiled]], architecture: int
) -> None:
    kernel, _ = compiled(cases_matmul.without_prefetch, {}, architecture)
    assert kernel.instructions["LDGSTS"] > 0 and [loop.waits for loop in kernel.loops] == [(0,)]
    assert not kernel.prefetches


@pytest.mark.parametrize(
    ("kind", "group_size", "most"),
    [("int4", 128, 3.3), pytest.param("int8", None, 4.0, marks=pytest.mark.slow)],
)
def test_a_weight_costs_few_instructions(
    compiled: Callable[..., list[Compiled]], kind: str, group_size: int | None, most: float
) -> None:
    """Per thread and weight, in the loop over tiles of 64 x 128. Marlin's conversion of 4 bits takes 1.1."""
    call = {"kind": kind, "num_tokens": 1, "group_size": group_size}
    kernel, _ = compiled(cases_matmul._shipped, call, 90)
    (loop,) = kernel.loops
    assert kernel.instructions["HGMMA"] > 0
    assert loop.length * 32 * kernel.warps / (64 * 128) <= most


@KINDS
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(2, 30)}, r"x is \(2, 30\).* needs \[T, 32\]"),
        ({"x": torch.zeros(32, 2).t()}, "contiguous rows"),
        ({"x": torch.zeros(32)}, r"x is \(32,\)"),
        ({"x": torch.zeros(2, 32, dtype=torch.float64)}, "float32, float16 or bfloat16"),
        ({"bias": torch.zeros(7)}, r"bias is \(7,\): it must be contiguous \[8\]"),
        ({"scale": torch.ones(8, 2)[:, ::2]}, "weight.scale has strides"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(kind: str, change: dict[str, Any], words: str) -> None:
    weight = weight_of(kind, 8, 32)
    if "scale" in change:
        weight = QuantizedWeight(weight.numbers, change["scale"])
    with pytest.raises(ValueError, match=words):
        MATMULS[kind](change.get("x", torch.zeros(2, 32)), weight, change.get("bias"))


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("int4", "int8", "int4_matmul needs 4 bits"),
        ("int8", "int4", "int8_matmul needs torch.int8"),
        ("int8", "fp8", "int8_matmul needs torch.int8"),
        ("fp8", "int8", "fp8_matmul needs torch.float8_e4m3fn"),
        ("w8a8", "fp8", "w8a8_matmul needs torch.int8"),
    ],
)
def test_another_format_is_refused(kind: str, given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MATMULS[kind](torch.zeros(2, 32), weight_of(given, 8, 32), None)


def test_w8a8_needs_one_scale_per_row_and_no_zeros() -> None:
    for weight in (weight_of("w8a8", 8, 32, 16), weight_of("w8a8", 8, 32, symmetric=False)):
        with pytest.raises(ValueError, match="needs a symmetric weight with one scale per row"):
            MATMULS["w8a8"](torch.zeros(2, 32), weight, None)
    with pytest.raises(ValueError, match="the limit is 32768 values"):
        quantise_tokens(torch.zeros(1, 40_000))

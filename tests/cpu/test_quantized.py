"""Products of the CPU with packed weights: each computes what the definition does, and a measurement chooses."""

import subprocess
import sys
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import ops
from minillm.cpu import float8, int4pack
from minillm.cpu import quantized as module
from minillm.cpu.quantized import FLOATS, PRODUCTS, ROWS, MeasuredMatmul
from minillm.packed import QuantizedWeight
from minillm.quantization.absmax import Grid
from minillm.quantization.fp8 import to_fp8

SCHEMES = sorted(PRODUCTS)
# Rounding x, or the result, to bfloat16 moves a result by up to 2^-8 of the largest; a sum in float32 by little.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(scheme: str, out: int, size_in: int, group: int = -1, symmetric: bool = True) -> QuantizedWeight:
    weight = normal(out, size_in, seed=out + size_in)
    if "fp8" in scheme:
        return to_fp8(weight)
    grid = Grid.of(weight, 4 if scheme == "int4" else 8, group, symmetric)
    return grid.pack(grid.round(weight))


def matmul(scheme: str) -> MeasuredMatmul:
    return MeasuredMatmul(scheme, getattr(ops, f"{scheme}_matmul"))


def assert_close(y: torch.Tensor, right: torch.Tensor, tolerance: float) -> None:
    assert y.shape == right.shape and y.isfinite().all()
    assert (y.float() - right.float()).abs().max() <= tolerance * right.float().abs().max()


@settings(max_examples=60)
@given(
    scheme=st.sampled_from(SCHEMES),
    rows=st.sampled_from([1, 2, 5, 17, 65, 300]),
    size_in=st.sampled_from([2, 16, 32, 34, 40, 64, 100, 256]),
    out=st.sampled_from([1, 3, 16, 48, 80, 600]),
    groups=st.sampled_from([1, 2]),
    symmetric=st.booleans(),
    dtype=st.sampled_from(FLOATS),
    strided=st.booleans(),
)
def test_every_product_that_fits_computes_the_definition(
    scheme, rows, size_in, out, groups, symmetric, dtype, strided
):
    weights_only = scheme in ("int8", "int4")
    weight = packed(
        scheme, out, size_in, size_in // (groups if weights_only else 1), symmetric or not weights_only
    )
    x = normal(rows, size_in).to(dtype)
    x = torch.cat([x, x], 1)[:, :size_in] if strided else x
    right = getattr(ops, f"{scheme}_matmul")(x.float(), weight, None)
    prepared = matmul(scheme).prepare(weight)
    before, tried = x.clone(), 0
    size = (x.float().abs() @ weight.dequantise().abs().t()).max()  # of the terms, which may cancel
    for product in PRODUCTS[scheme]:
        if product.fits(prepared):
            exact = product.name in ("int_mm", "fetched int_mm", "strips in float32")
            y = product.multiply(x, prepared)
            error = (y.float() - right.float()).abs().max()
            assert (
                error
                <= TOLERANCE[torch.float32 if exact and y.dtype == torch.float32 else torch.bfloat16] * size
            )
            tried += 1
    assert tried and torch.equal(x, before)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.float64, torch.float16])
@pytest.mark.parametrize("rows", [0, 1, 3, 70])
@pytest.mark.parametrize("biased", [True, False])
def test_the_operation_keeps_type_and_shape_and_adds_the_bias(scheme, dtype, rows, biased):
    weight = packed(scheme, 32, 64)
    x, bias = normal(rows, 64).to(dtype), normal(32, seed=3).to(dtype) if biased else None
    operation = matmul(scheme)
    y = operation(x, operation.prepare(weight), bias)
    assert y.dtype == dtype and y.shape == (rows, 32)
    if rows:
        right = operation.definition(x.float(), weight, None if bias is None else bias.float())
        assert_close(y, right, 2 * TOLERANCE[torch.bfloat16])


def test_w8a8_by_int_mm_is_the_definition_bit_for_bit():
    x, weight = normal(5, 72), packed("w8a8", 24, 72)
    x[2] = 0
    x[3, 5] = 1e4
    assert torch.equal(module.int_mm(x, weight), ops.w8a8_matmul(x, weight, None))
    assert torch.equal(module.int_mm(x, weight, fetch=True), ops.w8a8_matmul(x, weight, None))


@pytest.mark.parametrize("size_in", [33, 40, 100, 1, 8, 17, 48, 112])
def test_sizes_that_crash_int8pack_are_computed_otherwise(size_in):
    """`_weight_int8pack_mm` ends the process, or returns inf, unless its input size is a multiple of 16."""
    weight = packed("int8", 20, size_in)
    assert module.fits_int8pack(weight) == (size_in % 16 == 0)
    for rows in (1, 3, 20):
        x = normal(rows, size_in)
        assert_close(matmul("int8")(x, weight, None), ops.int8_matmul(x, weight, None), 1.5e-2)


@pytest.mark.slow
def test_int8pack_is_right_for_multiples_of_16():
    """In a process of its own, which a wrong rule would end."""
    code = """
import torch
for size_in in [16 * i for i in range(1, 24)] + [1008]:
    for out in (1, 2, 3, 5, 15, 16, 17, 63, 65):
        q = torch.randint(-127, 128, (out, size_in), dtype=torch.int8)
        for rows in (1, 2, 3, 4, 5, 17, 33):
            x = torch.randn(rows, size_in).bfloat16()
            y = torch._weight_int8pack_mm(x, q, torch.ones(out).bfloat16()).float()
            right = x.float() @ q.float().t()
            assert (y - right).abs().max() <= .01 * right.abs().max(), (size_in, out, rows)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=40)
@given(
    out=st.integers(1, 20).map(lambda n: 16 * n),
    group=st.sampled_from([32, 64, 96, 128, 256, 512]),
    groups=st.integers(1, 3),
    symmetric=st.booleans(),
    dtype=st.sampled_from(FLOATS),
)
def test_a_blocked_weight_is_the_same_weight(out, group, groups, symmetric, dtype):
    if int4pack.layout() is None:
        pytest.skip("this PyTorch has no 4-bit product for this processor")
    weight = packed("int4", out, group * groups, group, symmetric)
    weight = QuantizedWeight(weight.numbers, weight.scale.to(dtype), weight.zero)
    assert int4pack.fits(weight)
    blocked = int4pack.BlockedWeight.of(weight)
    assert torch.equal(blocked.numbers, weight.numbers) and torch.equal(blocked.unpacked(), weight.unpacked())
    assert torch.equal(blocked.dequantise(), weight.dequantise())
    assert (blocked.bits, blocked.shape, blocked.group_size) == (4, weight.shape, group)
    assert blocked.nbytes <= weight.nbytes + 4 * out * (group * groups // blocked.op_group)
    x = normal(3, group * groups).bfloat16()
    right = ops.int4_matmul(x.float(), weight, None)
    assert_close(blocked.matmul(x), right, 1.5e-2)


@pytest.mark.parametrize(
    ("out", "size_in", "group"), [(24, 64, 32), (32, 48, 48), (32, 48, 16), (32, 32, 16)]
)
def test_weights_that_the_4_bit_product_cannot_take_stay_as_they_are(out, size_in, group):
    weight, x = packed("int4", out, size_in, group), normal(2, size_in)
    assert matmul("int4").prepare(weight) is weight
    assert_close(matmul("int4")(x, weight, None), ops.int4_matmul(x, weight, None), 1.5e-2)


def test_an_unknown_layout_is_found_out(monkeypatch):
    """A processor that orders the numbers in a way that no candidate has: the weight stays, the result is right."""
    real = int4pack._pack
    monkeypatch.setattr(int4pack, "_pack", lambda numbers: real(numbers.roll(1, 0)))
    monkeypatch.setattr(int4pack, "layout", cache(int4pack.layout.__wrapped__))
    weight, x = packed("int4", 32, 64, 32), normal(2, 64)
    assert int4pack.layout() is None and matmul("int4").prepare(weight) is weight
    assert_close(matmul("int4")(x, weight, None), ops.int4_matmul(x, weight, None), 1.5e-2)


@pytest.mark.parametrize("block", [16, 32])
@pytest.mark.parametrize("halves", [True, False])
def test_layouts_of_other_processors(block, halves, monkeypatch):
    def pack(numbers):
        rows = []
        for start in range(0, len(numbers), block):
            part = numbers[start : start + block]
            half = len(part) // 2
            whole = halves and len(part) == block
            low, high = (part[:half], part[half:]) if whole else (part[::2], part[1::2])
            rows.append((low | high << 4).t().reshape(half * 2, -1))
        return torch.cat([row.reshape(-1, numbers.shape[1] // 2) for row in rows])

    monkeypatch.setattr(int4pack, "_pack", pack)
    found = int4pack.layout.__wrapped__()
    assert found is not None
    numbers = torch.randint(16, (5 * block, 64), dtype=torch.uint8)
    assert torch.equal(found.numbers(pack(numbers), slice(None), 64).t(), numbers)


def test_every_fp8_number():
    bits = torch.arange(256, dtype=torch.uint8)
    numbers = bits.view(torch.float8_e4m3fn)
    right = numbers.float()
    found = float8.scaled_down(numbers).float() * float8.UNIT
    assert torch.equal(found[~right.isnan()], right[~right.isnan()])
    assert float8.has_nan(numbers[:, None]).tolist() == right.isnan().tolist()


@pytest.mark.parametrize("scheme", ["fp8", "w8a8_fp8"])
def test_nan_in_an_fp8_weight_makes_its_output_nan(scheme):
    weight, x = packed(scheme, 4, 32), normal(3, 32)
    weight.numbers.view(torch.uint8)[2, 7] = 0x7F
    operation = matmul(scheme)
    y = operation(x, operation.prepare(weight), None)
    assert y.isnan().all(0).tolist() == [False, False, True, False]
    assert torch.equal(y.isnan(), operation.definition(x, weight, None).isnan())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), 1e30, 1e-30])
def test_unusual_activations(scheme, value):
    operation, weight, x = matmul(scheme), packed(scheme, 16, 32), normal(3, 32)
    x[1] = value
    y, right = operation(x, operation.prepare(weight), None), operation.definition(x, weight, None)
    finite = right.isfinite()
    assert torch.equal(y.isfinite(), finite)
    for row in (0, 1, 2):
        if finite[row].all():
            assert (y[row] - right[row]).abs().max() <= 2e-2 * right[row].abs().max()


class Clock:
    """Times of products that the test decides: seconds of each name."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.calls = seconds, []

    def times_of(self, fn, *, rounds, warmup):
        name, rows = fn(), len(fn.args[0])
        self.calls.append((name, rows))
        return [self.seconds[name]] * rounds


@pytest.fixture
def fresh(monkeypatch):
    """No choice is known yet."""
    monkeypatch.setattr(module, "_fastest", {})
    monkeypatch.setattr(module, "_fastest_parts", {})


def fakes(*names):
    return tuple(
        module.Product(name, lambda weight: True, lambda x, weight, name=name: name) for name in names
    )


@pytest.mark.usefixtures("fresh")
def test_the_fastest_product_is_chosen_once_for_each_number_of_rows(monkeypatch):
    clock = Clock(a=2e-4, b=1e-4, c=3e-4)
    monkeypatch.setattr(module, "times_of", clock.times_of)
    monkeypatch.setitem(PRODUCTS, "int8", fakes("a", "b", "c"))
    weight = packed("int8", 8, 24)
    choices = matmul("int8").choose([weight, weight], torch.float32)
    assert [tuple(choice) for choice in choices] == [("int8", 8, 24, rows, "b") for rows in ROWS]
    count = len(clock.calls)
    assert matmul("int8").choose([weight], torch.float32) == choices and len(clock.calls) == count
    assert matmul("int8").choose([weight], torch.bfloat16) and len(clock.calls) > count
    assert matmul("int8").choose([weight], torch.float64) == []


@pytest.mark.usefixtures("fresh")
def test_a_slow_product_is_called_twice(monkeypatch):
    """One slow call may be another program's fault, and two are not."""
    clock = Clock(a=1e-5, b=1e-4)
    monkeypatch.setattr(module, "times_of", clock.times_of)
    monkeypatch.setitem(PRODUCTS, "int8", fakes("a", "b"))
    matmul("int8").choose([packed("int8", 8, 24)], torch.float32)
    names = [name for name, _ in clock.calls]
    assert names.count("a") == module.MOST * len(ROWS) and names.count("b") == 2 * len(ROWS)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("exact", "rounds_sums", "chosen"), [(1.9e-4, 1e-4, "exact"), (2.1e-4, 1e-4, "rounds_sums")]
)
def test_an_exact_product_is_left_only_for_one_twice_as_fast(monkeypatch, exact, rounds_sums, chosen):
    clock = Clock(exact=exact, rounds_sums=rounds_sums)
    monkeypatch.setattr(module, "times_of", clock.times_of)
    first, second = fakes("rounds_sums", "exact")
    monkeypatch.setitem(PRODUCTS, "w8a8", (first._replace(rounds_sums=True), second))
    choices = matmul("w8a8").choose([packed("w8a8", 8, 24)], torch.float32)
    assert {choice.op for choice in choices} == {chosen}


@pytest.mark.usefixtures("fresh")
def test_time_limits_the_calls(monkeypatch):
    clock = Clock(a=module.SECONDS, b=module.SECONDS)
    monkeypatch.setattr(module, "times_of", clock.times_of)
    monkeypatch.setitem(PRODUCTS, "int8", fakes("a", "b"))
    matmul("int8").choose([packed("int8", 8, 24)], torch.float32)
    assert len(clock.calls) == 2 * 2 * len(ROWS)


@pytest.mark.usefixtures("fresh")
def test_the_calls_walk_through_the_model(monkeypatch):
    """Each takes another piece of memory, as the products of a step do: the same one would be in the cache."""
    seen = []

    def multiply(x, weight):
        seen.append((x.shape[0], weight.numbers.data_ptr()))

    monkeypatch.setitem(PRODUCTS, "int8", (module.Product("a", lambda weight: True, multiply),))
    weights = [packed("int8", 4096, 1024) for _ in range(4)]
    matmul("int8").choose(weights, torch.float32)
    first = [address for rows, address in seen if rows == 1]
    assert len(first) > 2 and len(set(first)) == len(first)


@pytest.mark.usefixtures("fresh")
def test_a_call_uses_the_product_of_its_rows(monkeypatch):
    used = []

    def product(rows):
        return module.Product(
            str(rows), lambda w: True, lambda x, w: used.append(rows) or ops.int8_matmul(x, w, None)
        )

    weight = packed("int8", 8, 24)
    kind = module.Kind.of("int8", weight, torch.float32)
    monkeypatch.setitem(module._fastest, kind, tuple(map(product, ROWS)))
    for rows in (1, 2, 4, 5, 16, 17, 64, 65, 256, 257, 1000):
        matmul("int8")(normal(rows, 24), weight, None)
    assert used == [1, 4, 4, 16, 16, 64, 64, 256, 256, 256, 256]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_measurement_is_small(scheme, monkeypatch):
    """It multiplies pieces of at most a million numbers of any weight, and calls each product a few times."""
    shapes = []
    real = PRODUCTS[scheme]

    def spied(product):
        def multiply(x, weight):
            shapes.append((x.shape[0], *weight.shape))
            return product.multiply(x, weight)

        return module.Product(product.name, product.fits, multiply)

    monkeypatch.setitem(PRODUCTS, scheme, tuple(map(spied, real)))
    matmul(scheme).choose([matmul(scheme).prepare(packed(scheme, 2048, 2048))], torch.float32)
    assert len(shapes) <= len(ROWS) * len(real) * module.MOST
    for rows, out, size_in in shapes:
        assert size_in <= module.MAX_IN and out * size_in <= module.MAX_NUMBERS
        assert rows * out * size_in <= max(module.MAX_PRODUCTS, module.MIN_OUT * rows * size_in)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.packed import QuantizedWeight, pack_int4, unpack_int4
from minillm.quantization.absmax import PER_CHANNEL, PER_TENSOR, Grid, fake_quantise
from minillm.quantization.fp8 import to_fp8


def weight(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


SHAPES = st.tuples(
    st.integers(1, 9), st.integers(1, 6), st.sampled_from([1, 2, 3, 8, 32])
)  # rows, groups, group size


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(2, 8), st.booleans(), st.integers(0, 2**31))
def test_no_weight_moves_by_more_than_half_a_step(shape, bits, symmetric, seed):
    rows, groups, size = shape
    w = weight(rows, groups * size, seed)
    grid = Grid.of(w, bits, size, symmetric)
    error = (grid.dequantise(grid.round(w)) - w).abs().unflatten(1, (groups, size))
    # A symmetric grid ends half a step below its largest number, and a rounded zero moves an end by half a step.
    assert (error <= grid.scale[..., None] * 0.5001).all()


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([4, 8]), st.booleans(), st.integers(0, 2**31))
def test_packing_keeps_every_number(shape, bits, symmetric, seed):
    rows, groups, size = shape
    columns = groups * size * 2
    w = weight(rows, columns, seed)
    grid = Grid.of(w, bits, size, symmetric)
    q = grid.round(w)
    packed = grid.pack(q)
    assert packed.shape == (rows, columns) and packed.bits == bits and packed.group_size == size
    assert torch.equal(packed.dequantise(), grid.dequantise(q))


@given(st.lists(st.integers(0, 15), min_size=2, max_size=40).filter(lambda some: len(some) % 2 == 0))
def test_two_numbers_of_four_bits_fill_a_byte_and_come_back(numbers):
    packed = pack_int4(torch.tensor(numbers))
    assert packed.tolist() == [a + 16 * b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    assert unpack_int4(packed).tolist() == numbers


def test_one_scale_per_tensor_row_or_group():
    w = torch.tensor([[1.0, -2.0, 0.5, 0.25], [4.0, 1.0, 1.0, 8.0]])
    scales = {size: Grid.of(w, 8, size).scale * 127.5 for size in (PER_TENSOR, PER_CHANNEL, 2)}
    assert scales[PER_TENSOR].tolist() == [[8], [8]]
    assert scales[PER_CHANNEL].tolist() == [[2], [8]]
    assert scales[2].tolist() == [[2, 0.5], [4, 8]]


def test_an_asymmetric_grid_covers_a_one_sided_row_twice_as_finely():
    w = torch.rand(1, 256, generator=torch.Generator().manual_seed(0))
    errors = [
        (fake_quantise(w, 4, symmetric=symmetric) - w).abs().mean().item() for symmetric in (True, False)
    ]
    assert 1.8 < errors[0] / errors[1] < 2.2


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e30, 1e-30])
def test_constant_rows_come_back(value, symmetric):
    w = torch.full((2, 8), value)
    assert torch.allclose(fake_quantise(w, 8, symmetric=symmetric), w, rtol=5e-3, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("make", [lambda w: Grid.of(w, 4), to_fp8], ids=["grid", "fp8"])
def test_a_weight_that_is_not_finite_is_refused(make, bad):
    w = weight(2, 4)
    w[1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        make(w)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"group_size=3 does not divide the 8 columns"):
        Grid.of(weight(2, 8), 4, 3)
    with pytest.raises(ValueError, match=r"bits=9: give 2 to 8"):
        Grid.of(weight(2, 8), 9)
    with pytest.raises(ValueError, match="3 numbers of 4 bits"):
        pack_int4(torch.ones(2, 3))
    three_bits = Grid.of(weight(2, 8), 3)
    with pytest.raises(ValueError, match="numbers of 3 bits have no packed form"):
        three_bits.pack(torch.zeros(2, 8))
    with pytest.raises(ValueError, match=r"scale \[2, 3\] does not fit a matrix \[2, 8\]"):
        QuantizedWeight(torch.zeros(2, 8, dtype=torch.int8), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"numbers are torch\.int16"):
        QuantizedWeight(torch.zeros(2, 8, dtype=torch.int16), torch.ones(2, 1))


def test_fp8_keeps_small_numbers_of_a_row_with_a_large_one():
    w = torch.tensor([[448.0, 0.1, -0.013, 1.0]])
    found = to_fp8(w).dequantise()
    assert torch.allclose(found, w, rtol=1 / 16 + 1e-6)
    assert not torch.allclose(fake_quantise(w, 8), w, rtol=0.5)

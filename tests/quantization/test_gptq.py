"""GPTQ against what it is made of: exact least squares for the columns that are still floats."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.quantization.absmax import Grid
from minillm.quantization.gptq import gptq, hessian


def problem(seed, out=3, size_in=6, bits=3, group_size=-1):
    """A weight, correlated inputs and the grid."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, size_in, generator=random)
    x = torch.randn(40, size_in, generator=random) @ torch.randn(size_in, size_in, generator=random)
    return weight, x, Grid.of(weight, bits, group_size)


def loss(weight, grid, q, x):
    return ((x @ (weight - grid.dequantise(q)).t()) ** 2).sum().item()


def by_least_squares(weight, x, grid, damping):
    """Round one column after another; each time solve for the best floats in all columns that are left."""
    h = hessian(x).double()
    h = h + damping * h.diagonal().mean() * torch.eye(len(h))
    w, q = weight.double().clone(), torch.zeros_like(weight)
    for j in range(weight.shape[1]):
        q[:, j] = grid.round(w.float())[:, j]
        w[:, j] = grid.dequantise(q)[:, j].double()
        done, left = slice(0, j + 1), slice(j + 1, None)
        error = (weight.double() - w)[:, done]
        w[:, left] = weight[:, left].double() + error @ h[done, left] @ h[left, left].inverse()
    return q


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 4, 128]),
    st.sampled_from([-1, 2]),
    st.sampled_from([0.01, 0.2]),
)
def test_each_column_is_made_up_for_as_well_as_floats_can(seed, block_size, group_size, damping):
    weight, x, grid = problem(seed, group_size=group_size)
    q = gptq(weight, hessian(x), grid, damping=damping, block_size=block_size)
    assert torch.equal(q, by_least_squares(weight, x, grid, damping))


def test_the_loss_lies_between_that_of_all_combinations_and_that_of_rounding():
    found = []
    for seed in range(30):
        weight, x, grid = problem(seed, out=1, size_in=4, bits=2)
        every = [torch.tensor([q], dtype=torch.float32) for q in product(range(4), repeat=4)]
        best = min(loss(weight, grid, q, x) for q in every)
        ours = loss(weight, grid, gptq(weight, hessian(x), grid, damping=1e-4), x)
        assert best <= ours * (1 + 1e-5)
        found.append((best, ours, loss(weight, grid, grid.round(weight), x)))
    best, ours, nearest = map(sum, zip(*found, strict=True))
    assert best <= ours < 0.8 * nearest


def test_the_hessian_is_twice_the_mean_product_of_two_inputs():
    _, x, _ = problem(0, size_in=5)
    for inputs in (x, x.t().contiguous().t(), x.bfloat16()):
        wanted = 2 * torch.einsum("ni,nj->ij", inputs.double(), inputs.double()) / len(inputs)
        assert torch.allclose(hessian(inputs).double(), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(hessian(x), hessian(x).t())


def test_a_column_has_the_scale_and_zero_of_its_group():
    weight, _, _ = problem(0)
    grid = Grid.of(weight, 3, 2, symmetric=False)
    scale, zero = grid.per_column(torch.tensor([5, 0, 3, 1, 2, 4]))
    groups = [2, 0, 1, 0, 1, 2]
    assert torch.equal(scale, grid.scale[:, groups].t())
    assert torch.equal(zero, grid.zero[:, groups].t())


def test_without_correlations_gptq_rounds_to_nearest():
    weight, _, grid = problem(0)
    h = torch.arange(1.0, 7.0).diag()
    for act_order in (False, True):
        assert torch.equal(gptq(weight, h, grid, act_order=act_order), grid.round(weight))


def test_act_order_takes_the_largest_inputs_first_and_keeps_the_groups():
    weight, x, grid = problem(3, group_size=2)
    h = hessian(x)
    order = h.diagonal().argsort(descending=True)
    by_column = Grid(
        grid.bits, grid.scale.repeat_interleave(2, 1)[:, order], grid.zero.repeat_interleave(2, 1)
    )
    sorted_q = gptq(weight[:, order], h[order][:, order], by_column)
    assert order.tolist() != list(range(6))
    assert torch.equal(gptq(weight, h, grid, act_order=True)[:, order], sorted_q)


@pytest.mark.parametrize("act_order", [False, True])
def test_columns_without_inputs_become_zero_and_disturb_nothing(act_order):
    weight, x, grid = problem(1)
    x[:, [1, 4]] = 0
    live = [0, 2, 3, 5]
    q = gptq(weight, hessian(x), grid, act_order=act_order, damping=0)
    assert (grid.dequantise(q)[:, [1, 4]] == 0).all()
    assert torch.equal(
        q[:, live], gptq(weight[:, live], hessian(x[:, live]), grid, act_order=act_order, damping=0)
    )


@pytest.mark.parametrize("value", [0.0, 3.0, 1e30, 1e-30])
def test_constant_weights_come_back(value):
    weight, x = torch.full((2, 4), value), torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    grid = Grid.of(weight, 8)
    assert torch.allclose(grid.dequantise(gptq(weight, hessian(x), grid)), weight, rtol=5e-3, atol=0)


def test_what_cannot_be_computed_is_named():
    weight, x, grid = problem(0)
    with pytest.raises(ValueError, match=r"hessian \[5, 5\] does not fit a weight of 6 columns"):
        gptq(weight, hessian(x[:, :5]), grid)
    with pytest.raises(ValueError, match="not finite"):
        gptq(weight, hessian(x / 0), grid)
    with pytest.raises(ValueError, match=r"no inverse with damping=0.*more damping"):
        gptq(weight, torch.ones(6, 6), grid, damping=0)

"""Every operation against its formula written out in float64, and against memory that holds anything at all."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm import ops
from minillm.batch import Batch, Chunk
from minillm.config import RopeConfig
from minillm.layer_kv import LARGEST, LayerKV
from minillm.model.rope import rope_table

# By norm, as SEMANTICS.md gates a kernel.
GATES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
every_dtype = pytest.mark.parametrize("dtype", GATES)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """`expected` is float64 math on the same inputs."""
    assert actual.shape == expected.shape and expected.dtype == torch.float64
    distance = (actual.double() - expected).norm() / expected.norm()
    assert distance.item() <= GATES[actual.dtype]  # false for a NaN


@every_dtype
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_rms_norm(dtype, scale):
    x, weight = scale * normal(5, 48, dtype=dtype), normal(48, seed=1, dtype=dtype)
    rows = [row / math.sqrt((row * row).mean() + 1e-6) for row in x.double()]
    assert_close(ops.rms_norm(x, weight, 1e-6), torch.stack(rows) * weight.double())


def test_rms_norm_of_each_head():
    x, weight = normal(5, 3, 8), normal(8, seed=1)
    out = ops.rms_norm(x, weight, 1e-5)
    for t in range(5):
        for h in range(3):
            torch.testing.assert_close(out[t, h], ops.rms_norm(x[t, h], weight, 1e-5))


@every_dtype
def test_add_rms_norm_returns_the_norm_and_the_sum(dtype):
    x, residual, weight = (
        normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate([(5, 48), (5, 48), (48,)])
    )
    before = residual.clone()
    out, total = ops.add_rms_norm(x, residual, weight, 1e-6)
    assert_close(total, x.double() + before.double())
    expected = total.double() / (total.double().pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    assert_close(out, expected)
    assert torch.equal(residual, before)


@every_dtype
@pytest.mark.parametrize("first_position", [0, 1, 37])
def test_rope_turns_each_pair_by_its_positions_angle(dtype, first_position):
    num_tokens, heads, dim, theta = 6, 3, 16, 100.0
    positions = torch.arange(first_position, first_position + num_tokens)
    x = normal(num_tokens, heads, dim, dtype=dtype)
    cos, sin = (table[positions].to(dtype) for table in rope_table(RopeConfig(theta=theta), dim, 64))
    expected = torch.empty(x.shape, dtype=torch.float64)
    for t, position in enumerate(positions.tolist()):
        for i in range(dim // 2):
            angle = position * theta ** (-2 * i / dim)
            a, b = x[t, :, i].double(), x[t, :, i + dim // 2].double()
            expected[t, :, i] = a * math.cos(angle) - b * math.sin(angle)
            expected[t, :, i + dim // 2] = b * math.cos(angle) + a * math.sin(angle)
    assert_close(ops.rope(x, cos, sin), expected)


def test_rope_makes_scores_depend_on_distance_alone():
    cos, sin = rope_table(RopeConfig(), 16, 64)
    q, k = normal(1, 1, 16), normal(1, 1, 16, seed=1)

    def score(i, j):
        return (
            ops.rope(q, cos[i : i + 1], sin[i : i + 1]) * ops.rope(k, cos[j : j + 1], sin[j : j + 1])
        ).sum()

    torch.testing.assert_close(score(9, 4), score(45, 40), rtol=1e-4, atol=1e-4)
    assert not torch.isclose(score(9, 4), score(9, 5), rtol=1e-3)


@every_dtype
def test_swiglu(dtype):
    gate_up = normal(5, 2 * 24, dtype=dtype)
    gate, up = gate_up[:, :24].double(), gate_up[:, 24:].double()
    assert_close(ops.swiglu(gate_up), gate / (1 + (-gate).exp()) * up)


def test_write_kv_touches_its_slots_and_no_other():
    k_cache, v_cache = (torch.full((4, 3, 2, 8), math.nan) for _ in range(2))
    k, v = normal(3, 2, 8), normal(3, 2, 8, seed=1)
    ops.write_kv(k, v, LayerKV(k_cache, v_cache), torch.tensor([7, 0, 11]))
    for cache, rows in ((k_cache, k), (v_cache, v)):
        slots = cache.view(12, 2, 8)
        assert torch.equal(slots[[7, 0, 11]], rows)
        assert slots[[1, 2, 3, 4, 5, 6, 8, 9, 10]].isnan().all()


def attention_by_definition(q, k, v, window):
    """One query and one head at a time, in float64; q are the last of k's positions."""
    q, k, v = q.double(), k.double(), v.double()
    (n, num_heads, dim), (s, num_kv_heads, _) = q.shape, k.shape
    out = torch.empty_like(q)
    for i in range(n):
        last = s - n + i
        first = 0 if window is None else max(0, last - window + 1)
        for h in range(num_heads):
            kv_head = h // (num_heads // num_kv_heads)
            scores = k[first : last + 1, kv_head] @ q[i, h] / math.sqrt(dim)
            weights = (scores - scores.max()).exp()
            out[i, h] = weights @ v[first : last + 1, kv_head] / weights.sum()
    return out


@given(
    num_keys=st.integers(1, 24),
    queries=st.floats(0, 1),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1), (6, 2)]),
    window=st.none() | st.integers(1, 30),
    dtype=st.sampled_from(list(GATES)),
)
def test_attention_of_the_last_tokens_over_all(num_keys, queries, heads, window, dtype):
    n = max(1, round(queries * num_keys))
    q = normal(n, heads[0], 8, dtype=dtype)
    k, v = (normal(num_keys, heads[1], 8, seed=i, dtype=dtype) for i in (1, 2))
    assert_close(ops.attend(q, k, v, window), attention_by_definition(q, k, v, window))


def test_a_window_hides_a_key_the_moment_it_leaves():
    q, k, v = normal(1, 2, 8), normal(10, 2, 8, seed=1), normal(10, 2, 8, seed=2)
    out = ops.attend(q, k, v, 4)
    far, near = v.clone(), v.clone()
    far[5], near[6] = 99, 99
    assert torch.equal(ops.attend(q, k, far, 4), out)
    assert not torch.equal(ops.attend(q, k, near, 4), out)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kv_dtype", "gate"), [(torch.int8, 1 / 254), (torch.float8_e4m3fn, 1 / 16)])
def test_what_is_read_of_a_quantised_number_is_close_to_it(dtype, kv_dtype, gate):
    """Within half a step of int8, which is 1/127 of the largest of its vector, or half a step of fp8's three bits."""
    x = normal(50, 2, 16, dtype=dtype) * torch.logspace(-3, 2, 50).to(dtype)[:, None, None]
    codes, scale = ops.quantise(x, kv_dtype)
    assert codes.dtype == kv_dtype and scale.dtype == torch.float32 and scale.shape == (50, 2)
    back = ops.dequantise(codes, scale, dtype)
    largest = x.double().abs().amax(-1, keepdim=True)
    step = largest if kv_dtype == torch.int8 else x.double().abs() + largest / 448
    slack = torch.finfo(dtype).eps * largest
    assert back.dtype == dtype and ((back.double() - x.double()).abs() <= gate * step + slack).all()


@pytest.mark.parametrize("kv_dtype", LARGEST)
def test_a_vector_of_zeros_stays_zeros_and_nan_stays_nan(kv_dtype):
    x = torch.zeros(3, 4)
    x[1, 2] = math.nan
    x[2] = torch.tensor([-2.0, 0.0, 1.0, 2.0])
    back = ops.dequantise(*ops.quantise(x, kv_dtype), torch.float32)
    assert not back[0].any() and back[1].isnan().all(), "a request with NaN keys must not pass unseen"
    assert back[2, [0, 1, 3]].tolist() == pytest.approx([-2, 0, 2])


@pytest.mark.parametrize("kv_dtype", LARGEST)
def test_write_kv_quantises_each_token_and_head_by_itself(kv_dtype):
    kv = LayerKV.empty((4, 3, 2, 8), kv_dtype, "cpu")
    for tensor in kv.tensors:
        tensor.copy_(torch.full(tensor.shape, 5.0))
    k, v = normal(3, 2, 8), normal(3, 2, 8, seed=1)
    k[1, 1] *= 1000  # an outlier costs no other head and no other token precision
    ops.write_kv(k, v, kv, torch.tensor([7, 0, 11]))
    for x, stored, scales in ((k, kv.k, kv.k_scale), (v, kv.v, kv.v_scale)):
        codes, scale = ops.quantise(x, kv_dtype)
        slots = stored.view(12, 2, 8).float()
        assert torch.equal(slots[[7, 0, 11]], codes.float())
        assert torch.equal(scales.view(12, 2)[[7, 0, 11]], scale)
        others = [1, 2, 3, 4, 5, 6, 8, 9, 10]
        assert (slots[others] == 5).all() and (scales.view(12, 2)[others] == 5).all()


def test_attention_without_a_cache_is_each_requests_own():
    chunks = [Chunk([0] * n, 0, [0]) for n in (5, 1, 7)]
    q, k, v = normal(13, 4, 8), normal(13, 2, 8, seed=1), normal(13, 2, 8, seed=2)
    for window in (None, 3):
        out = ops.self_attention(q, k, v, Batch.of(chunks, 16), window)
        parts = zip(*(t.split([5, 1, 7]) for t in (q, k, v)), strict=True)
        assert_close(out, torch.cat([attention_by_definition(*part, window) for part in parts]))


def test_the_defaults_of_ops_are_these_definitions():
    table = ops.Ops()
    assert "paged_attention" in ops.Ops.names() and "recordable" not in ops.Ops.names()
    assert not table.recordable and not ops.ops_for(torch.device("cpu")).recordable
    for name in ops.Ops.names():
        assert getattr(table, name) is getattr(ops, name)

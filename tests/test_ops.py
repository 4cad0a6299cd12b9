"""Every operation against its formula written out in float64, and against memory that holds anything at all."""

import math
import random
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm import ops, sparse_attention
from minillm.batch import Batch, Chunk
from minillm.config import RopeConfig
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
    ops.write_kv(k, v, k_cache, v_cache, torch.tensor([7, 0, 11]))
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


@contextmanager
def without(owner, name):
    """Fail where `owner.name` is called."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"{name} is called")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, refuse)
        yield


@st.composite
def paged_steps(draw):
    """Requests with `num_computed` tokens in blocks strewn at random over a cache, and new ones to compute."""
    block_size = draw(st.sampled_from([1, 2, 3, 16, 64]))
    sizes = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), min_size=1, max_size=4))
    if draw(st.booleans()):
        sizes = [(done, 1) for done, _ in sizes]  # a decode step
    needed = [-(-(done + new) // block_size) for done, new in sizes]
    order = list(range(sum(needed) + 1))
    random.Random(draw(st.integers(0, 9))).shuffle(order) if draw(st.booleans()) else None
    blocks = iter(order)
    chunks = [
        Chunk([0] * new, done, [next(blocks) for _ in range(n)])
        for (done, new), n in zip(sizes, needed, strict=True)
    ]
    return block_size, len(order), chunks


both_ways = pytest.mark.parametrize("paged_attention", [ops.paged_attention, ops.sparse_paged_attention])


@both_ways
@settings(max_examples=150)
@given(
    step=paged_steps(),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    window=st.none() | st.integers(1, 12),
    poison=st.sampled_from([math.nan, math.inf, -math.inf]),
    dtype=st.sampled_from(list(GATES)),
    most_keys=st.sampled_from([0, 20, sparse_attention.MOST_KEYS]),
)
def test_paged_attention_reads_its_tokens_wherever_they_lie_and_nothing_else(
    paged_attention, step, heads, window, poison, dtype, most_keys
):
    """The cache is poison but for the tokens that were written: one number read beyond them would show."""
    block_size, num_blocks, chunks = step
    batch = Batch.of(chunks, block_size)
    q = normal(len(batch.token_ids), heads[0], 8, dtype=dtype)
    k_cache, v_cache = (
        torch.full((num_blocks, block_size, heads[1], 8), poison, dtype=dtype) for _ in range(2)
    )
    expected = []
    for r, chunk in enumerate(chunks):
        k, v = (normal(chunk.seq_len, heads[1], 8, seed=10 * r + i, dtype=dtype) for i in (1, 2))
        for p in range(chunk.seq_len):
            block, offset = chunk.block_table[p // block_size], p % block_size
            k_cache[block, offset], v_cache[block, offset] = k[p], v[p]
        rows = slice(*batch.query_start[r : r + 2].tolist())
        expected.append(attention_by_definition(q[rows], k, v, window))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_attention, "MOST_KEYS", most_keys)
        assert_close(paged_attention(q, k_cache, v_cache, batch, window), torch.cat(expected))


@both_ways
@pytest.mark.parametrize("lengths", [(5, 7, 6), (3, 9, 5), (700, 9, 300)])
def test_a_request_with_nan_keys_spoils_no_other(paged_attention, lengths):
    """The second request's own keys are NaN; the others stay as they were."""
    batch = Batch.of([Chunk([0], n, [row]) for row, n in enumerate(lengths)], 1024)
    q, k_cache, v_cache = normal(3, 4, 8), normal(3, 1024, 2, 8, seed=1), normal(3, 1024, 2, 8, seed=2)
    clean = paged_attention(q, k_cache, v_cache, batch, None)
    for row, n in enumerate(lengths):
        k_cache[row, n + 1 :], v_cache[row, n + 1 :] = math.nan, math.nan
    k_cache[1] = math.nan
    out = paged_attention(q, k_cache, v_cache, batch, None)
    torch.testing.assert_close(out[::2], clean[::2])


def decode_step(lengths, block_size=4):
    """Requests with so many tokens in the cache, blocks dealt out in turns; and a cache of their size."""
    needed, blocks = [-(-n // block_size) for n in lengths], iter(range(10**6))
    tables = [[] for _ in lengths]
    for column in range(max(needed)):
        for table, n in zip(tables, needed, strict=True):
            table += [next(blocks)] if column < n else []
    batch = Batch.of([Chunk([0], n - 1, table) for n, table in zip(lengths, tables, strict=True)], block_size)
    k_cache, v_cache = (normal(sum(needed), block_size, 2, 8, seed=seed) for seed in (1, 2))
    return batch, normal(len(lengths), 4, 8), k_cache, v_cache


def test_decode_reads_the_cache_where_it_lies():
    """In memory that may only be read where it lies: no key is gathered, and no matrix as large as the cache made."""
    batch, q, k_cache, v_cache = decode_step((9, 30, 17))
    right = ops.paged_attention(q, k_cache, v_cache, batch, None)
    with without(ops, "attend"), without(ops, "attend_each"):
        out = ops.sparse_paged_attention(q, k_cache, v_cache, batch, None)
    torch.testing.assert_close(out, right)


@pytest.mark.parametrize("window", [None, 5])
def test_the_next_layer_finds_nothing_of_the_last(window):
    """What a step keeps for all layers is overwritten by each, whose windows may differ."""
    batch, q, k_cache, v_cache = decode_step((9, 30, 17))
    for layer_window in (None, 5):
        ops.sparse_paged_attention(torch.full_like(q, math.inf), k_cache, v_cache, batch, layer_window)
    right = ops.paged_attention(q, v_cache, k_cache, batch, window)
    torch.testing.assert_close(ops.sparse_paged_attention(q, v_cache, k_cache, batch, window), right)


def test_short_prompts_are_read_with_the_requests_that_decode():
    """Each in the one product or by itself, and never in both."""
    chunks = [Chunk([0], 8, [4, 1, 0]), Chunk([0] * 3, 4, [3, 2]), Chunk([0] * 40, 0, list(range(5, 15)))]
    batch = Batch.of(chunks, 4)
    q, k_cache, v_cache = (normal(44, 4, 8), *(normal(15, 4, 2, 8, seed=seed) for seed in (1, 2)))
    out = ops.sparse_paged_attention(q, k_cache, v_cache, batch, None)
    (pattern,) = batch.plans.values()
    assert pattern.rows.tolist() == [0, 1, 2, 3] and [read.rows for read in pattern.others] == [slice(4, 44)]
    assert pattern.padded.shape == (4 * 4, 12)  # as wide as the blocks of the 9 tokens, not the 40
    torch.testing.assert_close(out, ops.paged_attention(q, k_cache, v_cache, batch, None))


def test_no_weight_is_subnormal(monkeypatch):
    """Scores of a trained model lie hundreds apart, and a processor is slow with numbers as small as those weights."""
    batch, q, k_cache, v_cache = decode_step((9, 30, 17))
    q = q * 100
    given = []

    def embedding_bag(*args, per_sample_weights, **kwargs):
        given.append(per_sample_weights)
        return F.embedding_bag(*args, per_sample_weights=per_sample_weights, **kwargs)

    monkeypatch.setattr(sparse_attention, "F", SimpleNamespace(embedding_bag=embedding_bag))
    out = ops.sparse_paged_attention(q, k_cache, v_cache, batch, None)
    assert given[0].min() >= torch.finfo(torch.float32).tiny
    torch.testing.assert_close(out, ops.paged_attention(q, k_cache, v_cache, batch, None))


@pytest.mark.parametrize(
    ("lengths", "dtype", "made"),
    [
        ((9, 30), torch.float32, True),
        ((9, 30), torch.float64, True),
        ((9, 30), torch.bfloat16, False),  # PyTorch has no such product
        ((30,), torch.float32, False),  # one request has nothing to share a call with
        ((2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 300), torch.float32, False),  # ten rows of 298 paddings
        ((200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 300), torch.float32, True),
    ],
)
def test_when_decode_is_a_sparse_product(monkeypatch, lengths, dtype, made):
    monkeypatch.setattr(sparse_attention, "SMALL", 1000)
    batch, q, k_cache, v_cache = (x if isinstance(x, Batch) else x.to(dtype) for x in decode_step(lengths))
    out = ops.sparse_paged_attention(q, k_cache, v_cache, batch, None)
    assert [plan is not None for plan in batch.plans.values()] == [made]
    torch.testing.assert_close(out, ops.paged_attention(q, k_cache, v_cache, batch, None))


def test_a_cache_beyond_int32_is_no_sparse_matrix():
    batch, *_ = decode_step((9, 30))
    for num_blocks, made in ((2**28 - 1, True), (2**28, False)):
        pattern = sparse_attention.Pattern.of(batch, 4, (num_blocks, 4, 2, 8), None, torch.float32)
        assert (pattern is not None) == made


def test_blocks_that_follow_one_another_are_not_copied():
    """In memory that may only be read where it lies, a gather is the one thing that fails."""
    q, k_cache, v_cache = normal(3, 4, 8), normal(6, 4, 2, 8, seed=1), normal(6, 4, 2, 8, seed=2)
    batch = Batch.of([Chunk([0], 6, [1, 2]), Chunk([0] * 2, 8, [3, 4, 5])], 4)
    with without(torch.Tensor, "index_select"):
        out = ops.paged_attention(q, k_cache, v_cache, batch, None)
    scattered = Batch.of([Chunk([0], 6, [2, 1]), Chunk([0] * 2, 8, [3, 4, 5])], 4)
    with without(torch.Tensor, "index_select"), pytest.raises(AssertionError, match="index_select"):
        ops.paged_attention(q, k_cache, v_cache, scattered, None)
    for rows, blocks, n in ((slice(0, 1), slice(1, 3), 7), (slice(1, 3), slice(3, 6), 10)):
        k, v = (cache[blocks].flatten(0, 1)[:n] for cache in (k_cache, v_cache))
        assert_close(out[rows], attention_by_definition(q[rows], k, v, None))


def test_attention_without_a_cache_is_each_requests_own():
    chunks = [Chunk([0] * n, 0, [0]) for n in (5, 1, 7)]
    q, k, v = normal(13, 4, 8), normal(13, 2, 8, seed=1), normal(13, 2, 8, seed=2)
    for window in (None, 3):
        out = ops.self_attention(q, k, v, Batch.of(chunks, 16), window)
        parts = zip(*(t.split([5, 1, 7]) for t in (q, k, v)), strict=True)
        assert_close(out, torch.cat([attention_by_definition(*part, window) for part in parts]))


def test_the_defaults_of_ops_are_these_definitions():
    table = ops.Ops()
    for name in ops.Ops.__dataclass_fields__:
        assert getattr(table, name) is getattr(ops, name)

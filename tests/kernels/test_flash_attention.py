"""FlashAttention's kernels in Triton's interpreter, against the definition in float64; and that definition itself.

Tiles are mostly 16 x 32, so that a small case has every kind of tile: seen whole, cut by the diagonal, by the window,
by the end of the queries or of the keys, and not seen at all.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton has no build for this system")

from minillm import ops
from minillm.kernels.flash_attention import flash_attention
from tests.kernels import cases_flash

Interpreted = Callable[..., Any]

# By norm, as a kernel is judged. bfloat16 is left to a GPU: the interpreter gets it wrong.
GATES = {torch.float32: 1e-5, torch.float16: 1e-3}
TILES = (16, 32)
# B, S_q, S_k, H, H_kv, D
SHAPES = [
    (1, 1, 1, 1, 1, 16),
    (2, 1, 33, 4, 2, 16),
    (1, 15, 15, 2, 2, 16),
    (1, 16, 32, 2, 1, 16),
    (2, 17, 31, 4, 2, 16),
    (1, 33, 33, 3, 1, 16),
    (1, 50, 97, 2, 1, 16),
    (1, 50, 33, 2, 1, 16),  # 17 rows that see no key if causal
    (1, 40, 1, 1, 1, 16),
    (1, 32, 33, 1, 1, 16),  # the last query's last key is the only one in its tile
    (
        1,
        20,
        34,
        1,
        1,
        16,
    ),  # the query at key 30, which heads its tile, sees all but the last key of the first 32
]
WINDOWS = [1, 2, 15, 16, 17, 33, 47, 1000]  # 47: the first in which a tile is seen whole, just


def assert_within(errors: dict[str, float], dtype: torch.dtype = torch.float32) -> None:
    assert all(error <= GATES[dtype] for error in errors.values()), errors  # false for a NaN


# --- forward ---


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(interpreted: Interpreted, shape: tuple[int, ...], causal: bool) -> None:
    assert_within(interpreted(cases_flash.forward, shape, causal=causal, blocks=TILES))


@pytest.mark.parametrize("window", WINDOWS)
def test_forward_through_a_window(interpreted: Interpreted, window: int) -> None:
    assert_within(interpreted(cases_flash.forward, (1, 50, 50, 1, 1, 16), window=window, blocks=TILES))


@pytest.mark.parametrize("shape", [(1, 33, 97, 1, 1, 16), (1, 1, 70, 1, 1, 16)], ids=str)
def test_forward_through_a_window_over_more_keys(interpreted: Interpreted, shape: tuple[int, ...]) -> None:
    assert_within(interpreted(cases_flash.forward, shape, window=17, blocks=(32, 16)))


@pytest.mark.parametrize("head_dim", [1, 24, 64, 80, 160, 256])
def test_forward_with_the_tiles_that_ship(interpreted: Interpreted, head_dim: int) -> None:
    """Lengths beyond one tile of any table entry, on either side."""
    shape = (1, 130, 135, 1, 1, head_dim)
    assert_within(interpreted(cases_flash.forward, shape, dtype=torch.float16), torch.float16)


@pytest.mark.parametrize("head_dim", [1, 80, 128])
def test_forward_with_the_float32_tiles_that_ship(interpreted: Interpreted, head_dim: int) -> None:
    assert_within(interpreted(cases_flash.forward, (1, 20, 35, 2, 1, head_dim)))


@pytest.mark.slow
@settings(max_examples=10)
@given(
    st.tuples(*[st.integers(1, 70)] * 2),
    st.sampled_from([(1, 1), (2, 1), (3, 3)]),
    st.sampled_from([None, None, 1, 7, 16, 40]),
    st.sampled_from([(16, 16), (16, 32), (32, 16)]),
    st.booleans(),
)
def test_forward_and_backward_of_any_lengths(
    interpreted: Interpreted,
    lengths: tuple[int, int],
    heads: tuple[int, int],
    window: int | None,
    tiles: tuple[int, int],
    causal: bool,
) -> None:
    if window == 1 or lengths[1] == 1:
        return  # one key: dq and dk are 0, and have no relative error
    options = {"causal": causal or window is not None, "window": window, "blocks": tiles}
    assert_within(interpreted(cases_flash.forward, (1, *lengths, *heads, 16), **options))
    assert_within(interpreted(cases_flash.backward, (1, *lengths, *heads, 16), **options))


def test_scores_of_any_size_do_not_overflow(interpreted: Interpreted) -> None:
    assert_within(interpreted(cases_flash.large_scores))


@pytest.mark.parametrize("scale", [1e-4, 0.3])
def test_scale(interpreted: Interpreted, scale: float) -> None:
    shape = (1, 20, 20, 1, 1, 16)
    assert_within(interpreted(cases_flash.forward, shape, scale=scale, blocks=TILES))
    assert_within(interpreted(cases_flash.backward, shape, scale=scale, blocks=TILES))


@pytest.mark.parametrize("shape", [(0, 5, 5, 2, 1, 16), (1, 0, 5, 2, 1, 16), (1, 5, 0, 2, 1, 16)], ids=str)
def test_nothing_to_attend_to(interpreted: Interpreted, shape: tuple[int, ...]) -> None:
    assert interpreted(cases_flash.of_nothing, shape) == (0.0, 0.0)


# --- backward ---


@pytest.mark.parametrize("causal", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "shape",
    [s if i % 2 else pytest.param(s, marks=pytest.mark.slow) for i, s in enumerate(SHAPES) if s[2] > 1],
    ids=str,
)
def test_backward(interpreted: Interpreted, shape: tuple[int, ...], causal: bool) -> None:
    assert_within(interpreted(cases_flash.backward, shape, causal=causal, blocks=TILES))


def test_backward_in_float16(interpreted: Interpreted) -> None:
    errors = interpreted(cases_flash.backward, (1, 17, 33, 2, 1, 32), dtype=torch.float16, blocks=TILES)
    assert_within(errors, torch.float16)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS[1:])
def test_backward_through_a_window(interpreted: Interpreted, window: int) -> None:
    assert_within(interpreted(cases_flash.backward, (1, 50, 60, 1, 1, 16), window=window, blocks=TILES))


@pytest.mark.parametrize(
    "window", [8, 15, 16, 17]
)  # 8: query 32, the first of its tile, sees the last key of one
def test_backward_through_a_window_with_tiles_of_few_keys(interpreted: Interpreted, window: int) -> None:
    assert_within(interpreted(cases_flash.backward, (1, 34, 40, 1, 1, 16), window=window, blocks=(32, 16)))


@pytest.mark.parametrize(
    "head_dim", [24, 80, *(pytest.param(d, marks=pytest.mark.slow) for d in (64, 128, 160, 256))]
)
def test_backward_with_the_tiles_that_ship(interpreted: Interpreted, head_dim: int) -> None:
    errors = interpreted(cases_flash.backward, (1, 130, 135, 1, 1, head_dim), dtype=torch.float16)
    assert_within(errors, torch.float16)


def test_nothing_of_the_size_of_the_scores_is_kept(interpreted: Interpreted) -> None:
    shapes = interpreted(cases_flash.kept, (1, 50, 60, 4, 2, 16))
    assert sorted(shapes) == [(1, 4, 50), (1, 50, 4, 16), (1, 50, 4, 16), (1, 60, 2, 16), (1, 60, 2, 16)]


def test_lse_carries_no_gradient(interpreted: Interpreted) -> None:
    assert interpreted(cases_flash.with_gradients) == (True, False)


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        ({"k": torch.float16}, {}, TypeError, "one dtype, but have torch.float32, torch.float16"),
        (dict.fromkeys("qkv", torch.float64), {}, TypeError, "float64 is not supported"),
        ({"q": (4, 4, 32)}, {}, ValueError, "got 3, 4 and 4 axes"),
        ({"v": (1, 5, 2, 32)}, {}, ValueError, r"k \[1, 4, 2, 32\], v \[1, 5, 2, 32\]"),
        ({"q": (2, 4, 4, 32)}, {}, ValueError, "the B and D of q"),
        ({"q": (1, 4, 4, 16)}, {}, ValueError, "the B and D of q"),
        ({"q": (1, 4, 3, 32)}, {}, ValueError, "3 query heads cannot be shared out among 2"),
        (
            dict.fromkeys("qkv", (1, 4, 2, 129)),
            {},
            ValueError,
            "head_dim 129 .*take 1 to 128 in torch.float32",
        ),
        (dict.fromkeys("qkv", "wide"), {}, ValueError, "head_dim 257 .*take 1 to 256 in torch.float16"),
        ({"k": "transposed"}, {}, ValueError, r"the last axis of k has stride 8, .*k.contiguous\(\)"),
        ({"v": "meta"}, {}, ValueError, "on one device, but are on cpu, cpu and meta"),
        ({}, {"window": 0}, ValueError, "got causal=True, 0 keys"),
        ({}, {"window": 3, "causal": False}, ValueError, "got causal=False, 3 keys"),
        ({}, {"scale": 0.0}, ValueError, "positive and finite, not 0.0"),
        ({}, {"scale": math.nan}, ValueError, "positive and finite, not nan"),
    ],
)
def test_what_it_cannot_take_is_refused(
    interpreted: Interpreted,
    change: dict[str, Any],
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        interpreted(cases_flash.refused, change, **options)


def test_a_cpu_without_the_interpreter_is_refused() -> None:
    q = torch.zeros(1, 4, 2, 32)
    with pytest.raises(ValueError, match="set TRITON_INTERPRET=1"):
        flash_attention(q, q, q)


# --- the definition ---


@pytest.mark.parametrize("window", [None, 3])
def test_the_definition_row_by_row(window: int | None) -> None:
    q, k, v = (torch.randn(2, s, h, 8, dtype=torch.float64) for s, h in ((5, 4), (7, 2), (7, 2)))
    out, lse = ops.flash_attention(q, k, v, window=window, scale=0.7, return_lse=True)
    for b, i, h in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(4)):
        last = i + 2  # the last of 5 queries belongs to the last of 7 keys
        seen = slice(0 if window is None else max(0, last - window + 1), last + 1)
        weights = (0.7 * k[b, seen, h // 2] @ q[b, i, h]).exp()
        torch.testing.assert_close(out[b, i, h], weights @ v[b, seen, h // 2] / weights.sum())
        torch.testing.assert_close(lse[b, h, i], weights.sum().log())


def test_the_definition_of_a_row_that_sees_no_key() -> None:
    q, k, v = (torch.randn(1, s, 1, 8, requires_grad=True) for s in (5, 3, 3))
    out, lse = ops.flash_attention(q, k, v, return_lse=True)
    assert not out[0, :2].any() and (lse[0, 0, :2] == -torch.inf).all()
    grads = torch.autograd.grad(out.sum(), [q, k, v])
    assert not grads[0][0, :2].any() and all(grad.isfinite().all() for grad in grads)


def test_the_definition_does_not_hide_a_nan() -> None:
    q, k, v = (torch.ones(1, 3, 1, 8) for _ in "qkv")
    q[0, 1] = torch.nan
    assert ops.flash_attention(q, k, v).isnan().any(-1).tolist() == [[[False], [True], [False]]]

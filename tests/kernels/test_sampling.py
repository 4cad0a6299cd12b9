"""Softmax against float64, and truncation against the torch definitions: the same set, token for token."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

from minillm.kernels.sampling import softmax, top_k_mask, top_p_mask
from tests.kernels.cases_layers import probabilities, top_k, top_p

BLOCK = 2048


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 1e-5)])
@pytest.mark.parametrize(
    ("num_rows", "vocab_size"), [(3, 1), (3, 50), (2, BLOCK - 1), (1, BLOCK), (2, BLOCK + 1)]
)
def test_softmax(
    interpreted: Callable[..., Any], num_rows: int, vocab_size: int, dtype: torch.dtype, limit: float
) -> None:
    assert interpreted(probabilities, num_rows, vocab_size, dtype=dtype) <= limit


def row_of(seed: int, vocab_size: int) -> list[float]:
    return [random.Random(seed * 10_000 + i).gauss(0, 3) for i in range(vocab_size)]


def test_top_k_keeps_exactly_k(interpreted: Callable[..., Any]) -> None:
    counts = [1, 2, 50, 63, 64, 65, 99, 100]
    assert interpreted(top_k, [row_of(seed, 100) for seed in range(8)], counts) == counts


def test_top_k_beyond_one_block(interpreted: Callable[..., Any]) -> None:
    assert interpreted(top_k, [row_of(1, BLOCK + 9), row_of(2, BLOCK + 9)], [40, BLOCK + 8]) == [
        40,
        BLOCK + 8,
    ]


@pytest.mark.parametrize(
    "row",
    [
        [1.0] * 20,
        [0.0, -0.0] * 10,
        [-math.inf] * 5 + [2.0, -math.inf, 1.0] * 5,
        [3.0, 1.0, 3.0, 1.0, 1.0] * 4,
        [-1e30, -2.0, -1e-40, 1e-40, 0.0, 1e30, -0.0, 3.4e38, -3.4e38, 1e-45] * 2,
    ],
)
def test_top_k_gives_the_last_place_to_the_lowest_ids(
    interpreted: Callable[..., Any], row: list[float]
) -> None:
    counts = [1, 4, 7, 11, 14, 19, 20]
    assert interpreted(top_k, [row] * len(counts), counts) == counts


def test_ties_across_blocks_go_to_the_lowest_ids(interpreted: Callable[..., Any]) -> None:
    tied = [1.0 if i % 3 else 0.0 for i in range(BLOCK + 9)]
    assert interpreted(top_k, [tied], [1369]) == [1369]
    probs = torch.tensor(tied)
    assert interpreted(top_p, [(probs / probs.sum()).tolist()], [0.999]) == [math.ceil(0.999 * sum(tied))]


def test_top_p_is_the_nucleus(interpreted: Callable[..., Any]) -> None:
    rows = torch.tensor([row_of(seed, 200) for seed in range(6)]).softmax(-1).tolist()
    kept = interpreted(top_p, rows, [1e-30, 0.1, 0.5, 0.9, 0.99, 0.9999])
    assert kept[0] == 1 and kept == sorted(kept)


def test_top_p_close_to_1_keeps_all_where_rounding_leaves_less(interpreted: Callable[..., Any]) -> None:
    row = [0.1] * 9 + [0.0]
    assert interpreted(top_p, [row, row], [0.95, 0.5]) == [10, 5]


def test_top_p_stops_at_the_token_that_reaches_it(interpreted: Callable[..., Any]) -> None:
    row = [0.0625, 0.5, 0.125, 0.25, 0.0625]
    assert interpreted(top_p, [row] * 6, [0.5, 0.51, 0.75, 0.76, 0.9375, 0.94]) == [1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: top_k_mask(torch.zeros(2, 5), [1]), "a target for each of its rows"),
        (lambda: top_p_mask(torch.zeros(2, 5, dtype=torch.float16), [0.5, 0.5]), "must be float32"),
        (lambda: top_k_mask(torch.zeros(5), [1]), r"floating \[R, V\]"),
        (lambda: softmax(torch.zeros(2, 0)), "V above 0"),
        (lambda: softmax(torch.zeros(5, 2).T), "rows whole"),
        (lambda: softmax(torch.zeros(5, 2, dtype=torch.int64)), "must be floating"),
    ],
)
def test_other_input_is_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()

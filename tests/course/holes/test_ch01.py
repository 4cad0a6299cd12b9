"""The holes of chapter 01: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minillm.course.exercise import Wrong
from minillm.course.holes.ch01 import attend, check_attend, check_pick, pick


def by_mask(t, q, k, v):
    scores = (q @ k.T / q.shape[1] ** 0.5).masked_fill(~torch.ones(len(q), len(q)).tril().bool(), -torch.inf)
    return (scores.softmax(-1) @ v)[t]


def by_loop(t, q, k, v):
    weights = [float((q[t] @ k[j]) / q.shape[1] ** 0.5) for j in range(t + 1)]
    e = torch.tensor(weights).exp()
    return sum(e[j] / e.sum() * v[j] for j in range(t + 1))


def sees_the_future(t, q, k, v):
    return (k @ q[t] / 4).softmax(0) @ v


def one_too_long(t, q, k, v):
    return (k[: t + 2] @ q[t] / 4).softmax(0) @ v[: t + 2]


def not_itself(t, q, k, v):
    return (k[:t] @ q[t] / 4).softmax(0) @ v[:t]


def no_scale(t, q, k, v):
    return (k[: t + 1] @ q[t]).softmax(0) @ v[: t + 1]


def scaled_by_d(t, q, k, v):
    return (k[: t + 1] @ q[t] / 16).softmax(0) @ v[: t + 1]


def no_softmax(t, q, k, v):
    return k[: t + 1] @ q[t] / 4 @ v[: t + 1]


def no_sum(t, q, k, v):
    return (k[: t + 1] @ q[t] / 4).exp() @ v[: t + 1]


def mixes_keys(t, q, k, v):
    return (k[: t + 1] @ q[t] / 4).softmax(0) @ k[: t + 1]


def asks_the_values(t, q, k, v):
    return (v[: t + 1] @ q[t] / 4).softmax(0) @ v[: t + 1]


def asks_the_queries(t, q, k, v):
    return (q[: t + 1] @ k[t] / 4).softmax(0) @ v[: t + 1]


@pytest.mark.parametrize("right", [attend, by_mask, by_loop])
def test_a_right_attention_passes(right: Callable[..., Any]) -> None:
    check_attend(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (sees_the_future, "sees later tokens too"),
        (one_too_long, "sees token 4, a later one"),
        (not_itself, "does not see itself"),
        (no_scale, "not divided by √D"),
        (scaled_by_d, "divided by D"),
        (lambda t, q, k, v: (k[: t + 1] @ q[t] / q.shape[0] ** 0.5).softmax(0) @ v[: t + 1], "divided by √T"),
        (no_softmax, "used as weights"),
        (no_sum, "not divided by their sum"),
        (mixes_keys, "mix the keys"),
        (asks_the_values, "with the values"),
        (asks_the_queries, "compared with the queries"),
        (lambda t, q, k, v: (k[: t + 1] @ q[t] / 4).softmax(0), "shape"),
        (lambda t, q, k, v: None, "None"),
    ],
)
def test_a_wrong_attention_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_attend(wrong)


def by_walk(p, u):
    end = 0.0
    for token, share in enumerate(p.tolist()):
        end += share
        if u < end:
            return token
    raise AssertionError


@pytest.mark.parametrize(
    "right",
    [pick, by_walk, lambda p, u: (p.cumsum(0) <= u).sum(), lambda p, u: (p.cumsum(0) > u).int().argmax()],
)
def test_a_right_pick_passes(right: Callable[..., Any]) -> None:
    check_pick(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda p, u: int(p.argmax()), "most likely token"),
        (lambda p, u: pick(p, u) + 1, "one too far"),
        (lambda p, u: max(0, pick(p, u) - 1), "one too early"),
        (lambda p, u: pick(p.sort(descending=True).values, u), "sorted order"),
        (lambda p, u: int(torch.searchsorted(p.cumsum(0), u)), "the first part has just ended"),
        (lambda p, u: 1 if u == 0.125 else pick(p, u), "can never be drawn"),
        (lambda p, u: int(torch.multinomial(p, 1)) if u == 0.55 else pick(p, u), "u alone must choose"),
        (lambda p, u: int((p.cumsum(0) - u).abs().argmin()), "nearest end"),
        (lambda p, u: (p.cumsum(0) > u).nonzero()[0], r"tensor of shape \[1\]"),
        (lambda p, u: None, "None"),
        (lambda p, u: p[pick(p, u)].item(), "int"),
    ],
)
def test_a_wrong_pick_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_pick(wrong)

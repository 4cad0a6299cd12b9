"""Test the messages of the later parts of chapter 01's checks. The proofs read only the first message of a report."""

import pytest

from minillm.course.check import grade
from minillm.course.exercise import find
from minillm.course.source import from_text

MASKED_HEADS = """import torch
def causal_attention(q, k, v):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones(len(q), len(q)).triu(1) == 1, -torch.inf).softmax(-1) @ v
"""
TRIANGLE_OF_HEADS = """import torch
def causal_attention(q, k, v):
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return scores.masked_fill(torch.ones_like(scores).tril() == 0, -torch.inf).softmax(-1) @ v
"""
CUT = """import torch
def distribution(logits, temperature, top_k, top_p):
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).float()
    s, order = (logits / temperature).softmax(0).sort(descending=True)
    if top_k > 0:
        s[TOP_K:] = 0
        s = s / s.sum()
    s[s.cumsum(0) SIGN top_p] = 0
    return torch.zeros_like(logits).scatter(0, order, s / s.sum())
"""
WITHOUT_CROSSING = CUT.replace("TOP_K", "top_k").replace("SIGN", ">")
CUT_AT_ONE = CUT.replace("TOP_K", "top_k").replace("SIGN", ">=")
ONE_OF_TOP_K_TOO_FEW = CUT.replace("TOP_K", "top_k - 1").replace("s[s.cumsum(0) SIGN", "s[s.cumsum(0) - s >=")


@pytest.mark.parametrize(
    ("exercise", "text", "part", "message"),
    [
        ("01.1", MASKED_HEADS, "one token sees itself", "the scores have the shape [T, H, H]"),
        ("01.1", MASKED_HEADS, "the mask, the scale, the softmax", "Are the scores [H, T, T]?"),
        ("01.1", TRIANGLE_OF_HEADS, "one token sees itself", "the scores have the shape [T, H, H]"),
        (
            "01.1",
            TRIANGLE_OF_HEADS,
            "the mask, the scale, the softmax",
            "the scores have the shape [T, H, H]",
        ),
        ("01.3", WITHOUT_CROSSING, "top-p", "the token that crosses top_p is missing"),
        ("01.3", WITHOUT_CROSSING, "all three, in their order", "the token that crosses top_p is missing"),
        ("01.3", CUT_AT_ONE, "temperature", "top_p=1 turns top-p off"),
        ("01.3", CUT_AT_ONE, "top-k", "top_p=1 turns top-p off"),
        ("01.3", CUT_AT_ONE, "all three, in their order", "the token that crosses top_p is missing"),
        ("01.3", ONE_OF_TOP_K_TOO_FEW, "top-k", "top-k keeps one token too few"),
    ],
)
def test_a_later_part_names_the_same_mistake(exercise: str, text: str, part: str, message: str) -> None:
    report = grade(find(exercise), from_text(text, find(exercise).function))
    (wrong,) = [tried.wrong for tried in report.parts if tried.name == part]
    assert message in wrong, str(report)

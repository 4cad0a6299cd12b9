"""The chapters' tools for quantisation see the model that they are given, and judge it by what they say."""

import math

import pytest
import torch

from minillm import LLM
from minillm.course.quantised import HEAD, Judge, recorded_inputs, weights_of, windows, with_weights
from minillm.perplexity import perplexity


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM("tinytales", dtype="float32", max_model_len=512)


@pytest.fixture(scope="module")
def texts(llm: LLM) -> list[list[int]]:
    return windows(llm.tokenizer, "stories", 2)


def test_windows_follow_one_another_from_either_end(llm: LLM) -> None:
    first, both = windows(llm.tokenizer, "stories", 1), windows(llm.tokenizer, "stories", 2)
    assert first[0] == both[0] and [len(window) for window in both] == [256, 256]
    assert windows(llm.tokenizer, "stories", 1, last=True) != first


def test_inputs_are_those_of_each_product(llm: LLM, texts: list[list[int]]) -> None:
    inputs, weights = recorded_inputs(llm.model, texts), weights_of(llm.model)
    assert list(inputs) == list(weights) and HEAD not in inputs and len(inputs) == 24
    for name, x in inputs.items():
        assert x.shape == (512, weights[name].shape[1])
    x = inputs["model.layers.0.self_attn.qkv"]
    embedded = llm.model.weights.embed(torch.tensor(texts[0] + texts[1]))
    assert torch.allclose(x, llm.model.norm(embedded, llm.model.weights.blocks[0].attention_norm), atol=1e-5)


def test_a_model_gets_the_other_weights_and_keeps_its_head(llm: LLM) -> None:
    other = with_weights(llm.model, lambda name, weight: 2 * weight)
    for name, weight in weights_of(other).items():
        assert torch.equal(weight, 2 * weights_of(llm.model)[name])
    assert other.weights.lm_head is llm.model.weights.lm_head


def test_a_judge_measures_what_it_says(llm: LLM, texts: list[list[int]]) -> None:
    judge = Judge(llm.model, texts)
    same = judge(llm.model)
    assert same.kl == pytest.approx(0, abs=1e-6) and same.agreement == 1
    text = llm.tokenizer.decode(texts[0])
    if llm.tokenizer.encode(text) == texts[0]:
        assert judge(llm.model, [0]).perplexity == pytest.approx(perplexity(llm, text), rel=1e-4)
    noisy = with_weights(llm.model, lambda name, weight: weight + 0.05 * torch.randn_like(weight))
    worse = judge(noisy)
    assert worse.kl > 0.01 and worse.agreement < 1
    halves = [judge(noisy, [number]) for number in (0, 1)]
    assert worse.kl == pytest.approx(sum(half.kl for half in halves) / 2)
    logs = sum(math.log(half.perplexity) for half in halves) / 2
    assert worse.perplexity == pytest.approx(math.exp(logs))

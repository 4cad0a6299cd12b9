import math

import pytest

from minillm import LLM, RequestError, perplexity
from minillm.perplexity import token_logprobs
from tests.engine import tiny

WINDOW, STRIDE = 12, 5


@pytest.fixture(scope="module")
def llm():
    return tiny.llm()


def text_of(num_tokens):
    """A text of so many tokens: the first is <|end|>, then one a digit, since the tokenizer never met any."""
    return "".join("8375019264"[i % 10] for i in range(num_tokens - 1))


def directly(llm, text, window, stride):
    """Each token by a forward pass of its own over its context: what the windows must come to."""
    ids, scores = llm.tokenizer.encode(text), []
    for t in range(1, len(ids)):
        start = 0
        while start + window <= t:  # the first window that reaches token t
            start += stride
        scores.append(tiny.log_softmax(ids[start:t])[-1, ids[t]].item())
    return scores


@pytest.mark.parametrize(
    "num_tokens", [2, WINDOW - 1, WINDOW, WINDOW + 1, WINDOW + STRIDE, WINDOW + STRIDE + 1, 40]
)
@pytest.mark.parametrize("stride", [STRIDE, 1, WINDOW - 1])
def test_every_token_is_scored_once_in_its_window(llm, num_tokens, stride):
    text = text_of(num_tokens)
    found = token_logprobs(llm, text, window=WINDOW, stride=stride)
    assert len(found) == num_tokens - 1
    assert found == pytest.approx(directly(llm, text, WINDOW, stride), abs=1e-4)


def test_perplexity_is_the_exponential_of_the_mean(llm):
    text = "the quick brown cat sat there once upon a time and drank a café"
    scores = directly(llm, text, WINDOW, WINDOW // 2)
    assert perplexity(llm, text, window=WINDOW) == pytest.approx(
        math.exp(-sum(scores) / len(scores)), rel=1e-4
    )


def test_the_default_window_is_all_the_context_there_is(llm):
    longest = tiny.CONTEXT - 1
    text = text_of(longest + 9)
    assert token_logprobs(llm, text) == pytest.approx(directly(llm, text, longest, longest // 2), abs=1e-4)


@pytest.mark.parametrize("changes", [{"kv_cache": "none"}, {"max_num_batched_tokens": 7, "max_num_seqs": 2}])
def test_it_does_not_depend_on_how_the_engine_is_run(llm, changes):
    text = text_of(50)
    found = perplexity(tiny.llm(**changes), text, window=WINDOW)
    assert found == pytest.approx(perplexity(llm, text, window=WINDOW), rel=1e-5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"window": 1}, r"window=1: give 2 to 95"),
        ({"window": 96}, r"window=96: give 2 to 95"),
        ({"window": 9, "stride": 0}, r"stride=0: give 1 to 8"),
        ({"window": 9, "stride": 9}, r"stride=9: give 1 to 8"),
    ],
)
def test_a_window_or_stride_that_cannot_be_is_refused(llm, how, message):
    with pytest.raises(ValueError, match=message):
        perplexity(llm, text_of(20), **how)


def test_a_text_too_short_to_predict_anything_is_refused(llm):
    with pytest.raises(RequestError, match="has 1 tokens: perplexity needs at least 2"):
        perplexity(llm, "")


def test_without_a_tokenizer_it_is_refused(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny.folder() / name)
    with LLM(tmp_path, max_num_seqs=1) as llm, pytest.raises(RequestError, match="needs a tokenizer"):
        perplexity(llm, "hello")

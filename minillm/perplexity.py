"""Perplexity: the number of tokens between which a model chooses, on average, at each token of a text.

It is exp of the mean negative log-likelihood. The text is cut into windows that overlap by `window - stride` tokens.
Each token is scored once, given the tokens before it in its window. The overlapping tokens were scored in the previous
window and serve as context only.
"""

import math
from typing import TYPE_CHECKING

from minillm.errors import RequestError

if TYPE_CHECKING:
    from minillm.llm import LLM


def perplexity(llm: "LLM", text: str, *, window: int | None = None, stride: int | None = None) -> float:
    """Return the model's perplexity per token on `text`.

    `window` is the number of tokens that the model sees at once; its default and maximum is `max_model_len - 1`. The
    window moves by `stride` tokens, by default half of it. The first token has no context and is not scored. Raises
    `RequestError` for a text of fewer than two tokens, and `ValueError` for an invalid window or stride.
    """
    return math.exp(-sum(scores := token_logprobs(llm, text, window=window, stride=stride)) / len(scores))


def token_logprobs(
    llm: "LLM", text: str, *, window: int | None = None, stride: int | None = None
) -> list[float]:
    """Return log p(token | its context in the window) for every token of `text` but the first."""
    from minillm.sampling import SamplingParams  # not at the top: it imports torch

    longest = llm.engine.max_model_len - 1
    window = longest if window is None else window
    stride = max(1, window // 2) if stride is None else stride
    if not 2 <= window <= longest:
        raise ValueError(f"window={window}: give 2 to {longest} tokens (max_model_len - 1)")
    if not 1 <= stride < window:
        raise ValueError(f"stride={stride}: give 1 to {window - 1} tokens (window - 1)")
    if llm.tokenizer is None:
        raise RequestError(
            f"perplexity needs a tokenizer, but {llm.name!r} has none: use a model with a tokenizer"
        )
    ids = llm.tokenizer.encode(text)
    if len(ids) < 2:
        raise RequestError(
            f"the text has {len(ids)} tokens: perplexity needs at least 2, one to predict from another"
        )
    starts = [0]
    while starts[-1] + window < len(ids):
        starts.append(starts[-1] + stride)
    params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    outputs = llm.generate([ids[s : s + window] for s in starts], params)
    scores: list[float] = []
    for start, output in zip(starts, outputs, strict=True):
        report = output.prompt_logprobs or []
        for i in range(len(scores) + 1 - start, len(report)):
            at = report[i]
            assert at is not None
            scores.append(at[output.prompt_token_ids[i]].logprob)
    return scores

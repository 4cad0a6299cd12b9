"""Sampling parameters at and beyond their limits: what one engine refuses, the other refuses."""

import os

from minillm import LLM, SamplingParams

CASES = {
    "n": [0, 1, 2, 16385],
    "temperature": [-0.1, 0, 0.001, 2, 2.01, float("nan"), float("inf")],
    "top_p": [0, 0.001, 1, 1.1],
    "top_k": [-2, -1, 0, 1, 10**6],
    "min_p": [-0.1, 0, 1, 1.1],
    "repetition_penalty": [0, 0.01, 100.0, -1, float("nan"), float("inf")],
    "presence_penalty": [-2.1, -2, 2, 2.1],
    "frequency_penalty": [-2.1, -2, 2, 2.1],
    "max_tokens": [0, 1, None],
    "min_tokens": [-1, 0, 4, 5],
    "stop": ["", "a", ["a"], [""], ("a",), []],
    "stop_token_ids": [[], [1], [1, 1], [-1], [4095], [4096], (1,)],
    "logprobs": [-2, 0, 20, 21, True],
    "prompt_logprobs": [-2, 0, 20, 21, True],
    "allowed_token_ids": [[], [1], [4096], [-1]],
    "logit_bias": [{}, {1: 1.0}, {4096: 1.0}, {-1: 1.0}],
    "bad_words": [[], ["a"], [""]],
    "seed": [-1, 0, -5, 2**63],
    "detokenize": [False],
    "flat_logprobs": [False],
    "structured_outputs": [None],
    "skip_reading_prefix_cache": [None],
}

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=64, enforce_eager=True)


def accepts(**arguments):
    try:
        params = SamplingParams(**{"max_tokens": 4, **arguments})
        return llm.generate("The dog", params, use_tqdm=False)[0].finished
    except Exception:
        return False


facts = [[name, str(value), accepts(**{name: value})] for name, values in CASES.items() for value in values]
for together in (
    {"n": 2, "temperature": 0},
    {"n": 2, "temperature": 0.001},
    {"stop": ["a"], "detokenize": False},
    {"min_tokens": 5, "max_tokens": 5},
):
    facts.append(["", str(together), accepts(**together)])

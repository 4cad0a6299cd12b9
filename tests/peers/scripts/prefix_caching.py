"""Prompts that share a beginning: the same outputs, and how many tokens the cache contributed."""

import os

from minillm import LLM, SamplingParams

llm = LLM(
    os.environ["PEER_MODEL"],
    dtype="float32",
    max_model_len=512,
    enforce_eager=True,
    enable_prefix_caching=True,
    block_size=32,
)
shared = list(range(300, 400))
params = SamplingParams(temperature=0, max_tokens=12)
outputs = []
for ids in (shared, shared, shared[:96], shared[:97], [*shared, 7, 8, 9], [5, *shared]):
    outputs += llm.generate({"prompt_token_ids": ids}, params, use_tqdm=False)

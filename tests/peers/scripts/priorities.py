"""Priorities with few places: every request is served, in the order of the prompts."""

import os

from minillm import LLM, SamplingParams

llm = LLM(
    os.environ["PEER_MODEL"],
    dtype="float32",
    max_model_len=256,
    enforce_eager=True,
    scheduling_policy="priority",
    max_num_seqs=2,
)
prompts = ["Once upon a time", "The dog", "Lily had a red ball. One day,", "It was raining, so"]
params = SamplingParams(temperature=0, max_tokens=16)
outputs = llm.generate(prompts, params, use_tqdm=False, priority=[3, 0, 2, -1])
outputs += llm.generate(prompts, params, use_tqdm=False, priority=1)
outputs += llm.chat([{"role": "user", "content": "Hello"}], params, use_tqdm=False, priority=[2])

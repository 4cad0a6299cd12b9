"""Several samples per prompt: their order and number, and the seeds that they derive from one."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True)
prompts = ["Once upon a time", "The dog"]
# top_k=1 leaves one token, so that samples can be compared between engines.
outputs = llm.generate(prompts, SamplingParams(n=3, top_k=1, max_tokens=20, seed=0), use_tqdm=False)
outputs += llm.generate(
    prompts, SamplingParams(n=2, top_k=1, max_tokens=8, logprobs=1, stop=["."]), use_tqdm=False
)

params = SamplingParams(n=4, seed=7, max_tokens=20)
first, second = (llm.generate(prompts, params, use_tqdm=False) for _ in range(2))
repeats = [(first, second)]
assert [sample.index for sample in first[0].outputs] == [0, 1, 2, 3]
assert len({sample.text for sample in first[0].outputs}) > 1

"""Seeds make samples reproducible. Two engines draw different random numbers, so each is compared with itself."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True, seed=1)
prompts = ["Once upon a time", "The dog", "Lily had a red ball. One day,"]
settings = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20, "min_p": 0.01},
]
repeats = []
for setting in settings:
    params = [SamplingParams(max_tokens=24, seed=seed, **setting) for seed in (1, 2, 3)]
    together = llm.generate(prompts, params, use_tqdm=False)
    again = llm.generate(prompts, params, use_tqdm=False)
    repeats.append((together, again))
different = llm.generate(
    [prompts[0]] * 8, [SamplingParams(max_tokens=24, seed=i) for i in range(8)], use_tqdm=False
)
assert len({output.outputs[0].text for output in different}) > 1
assert llm.generate(prompts[0], SamplingParams(seed=-1, max_tokens=2), use_tqdm=False)[0].finished

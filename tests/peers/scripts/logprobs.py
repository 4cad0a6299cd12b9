"""Log-probabilities of output and prompt, with ranks and the text of each token."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True)
prompts = ["Once upon a time", "The dog ran to the “big” tree… 🙂 and"]
outputs = []
for logprobs, prompt_logprobs in ((0, None), (5, None), (None, 0), (3, 4), (20, 20), (True, None)):
    params = SamplingParams(temperature=0, max_tokens=10, logprobs=logprobs, prompt_logprobs=prompt_logprobs)
    outputs += llm.generate(prompts, params, use_tqdm=False)
# They describe the model, whatever sampling makes of it.
outputs += llm.generate(
    prompts, SamplingParams(temperature=0, max_tokens=10, logprobs=2, repetition_penalty=1.5), use_tqdm=False
)
outputs += llm.generate(
    prompts, SamplingParams(temperature=1.5, top_k=1, max_tokens=10, logprobs=2), use_tqdm=False
)

"""Penalties, biases, allowed tokens and bad words."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True)
prompt = "Once upon a time there was a little girl named Lily. Lily liked to"
[plain] = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=30), use_tqdm=False)
ids = plain.outputs[0].token_ids
outputs = [plain]
for more in (
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"presence_penalty": 1.5},
    {"frequency_penalty": 0.7, "presence_penalty": -0.3},
    {"logit_bias": {ids[2]: -100, ids[7]: 5.0}},
    {"allowed_token_ids": sorted(set(ids))[::2]},
    {"allowed_token_ids": [ids[3]]},
):
    outputs += llm.generate(prompt, SamplingParams(temperature=0, max_tokens=30, **more), use_tqdm=False)
# Two engines may spell around a bad word differently; neither may write it.
word = plain.outputs[0].text.split()[2].strip(".,")
[without] = llm.generate(
    prompt, SamplingParams(temperature=0, max_tokens=30, bad_words=[word]), use_tqdm=False
)
assert word not in without.outputs[0].text.split(), (word, without.outputs[0].text)

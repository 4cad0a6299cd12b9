"""`min_tokens` with the end token, with stop tokens and with stop strings."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True)
prompt = "Once upon a time"
eos = llm.get_tokenizer().eos_token_id
[whole] = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=30), use_tqdm=False)
text, ids = whole.outputs[0].text, whole.outputs[0].token_ids
outputs = [whole]
for minimum in (0, 1, 2, 4, 5, 6, 7, 12):
    for more in (
        {"logit_bias": {eos: 100}},
        {"stop_token_ids": [ids[5]]},
        {"stop": [text[10:14]]},
        {"stop": [text[10:14], " a"], "include_stop_str_in_output": True},
    ):
        params = SamplingParams(temperature=0, max_tokens=24, min_tokens=minimum, **more)
        outputs += llm.generate(prompt, params, use_tqdm=False)

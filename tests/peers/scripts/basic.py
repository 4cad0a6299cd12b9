"""One prompt, greedy decoding."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=256, enforce_eager=True)
params = SamplingParams(temperature=0, max_tokens=40)
outputs = llm.generate("Once upon a time", params)
outputs += llm.generate("Once upon a time", params, use_tqdm=False)
params.max_tokens = 5
outputs += llm.generate([{"prompt": "The cat"}], params.clone(), use_tqdm=False)

text = outputs[0].outputs[0].text
assert outputs[0].finished and outputs[0].outputs[0].finished()
assert text == llm.get_tokenizer().decode(outputs[0].outputs[0].token_ids)

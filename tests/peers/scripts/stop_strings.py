"""Stop strings and stop tokens: where the text ends, and the reasons."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=512, enforce_eager=True)
prompt = "Once upon a time"
[whole] = llm.generate(prompt, SamplingParams(temperature=0, max_tokens=40), use_tqdm=False)
text, ids = whole.outputs[0].text, whole.outputs[0].token_ids
stops = [
    [text[20:23]],  # from the middle of one word into the next
    [text[30:42], text[10:14]],
    [text[12:16], text[14:16]],  # two that end at the same place
    [text[14:16], text[12:16]],
    [text[0:3]],  # the very beginning
    ["never in this text"],
    [text[-2:]],  # with the last token
]
outputs = [whole]
for stop in stops:
    for include in (False, True):
        params = SamplingParams(temperature=0, max_tokens=40, stop=stop, include_stop_str_in_output=include)
        outputs += llm.generate(prompt, params, use_tqdm=False)
outputs += llm.generate(prompt, SamplingParams(temperature=0, max_tokens=40, stop=text[8:9]), use_tqdm=False)
outputs += llm.generate(
    prompt, SamplingParams(temperature=0, max_tokens=40, stop_token_ids=[ids[9]]), use_tqdm=False
)
outputs += llm.generate(prompt, SamplingParams(temperature=0, max_tokens=480), use_tqdm=False)
outputs += llm.generate(
    prompt, SamplingParams(temperature=0, max_tokens=400, ignore_eos=True), use_tqdm=False
)
outputs += llm.generate(
    prompt,
    SamplingParams(temperature=0, max_tokens=400, ignore_eos=True, skip_special_tokens=False),
    use_tqdm=False,
)

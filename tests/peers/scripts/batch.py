"""Many prompts at once, given as text and as token ids, with parameters of their own."""

import os

from minillm import LLM, SamplingParams

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=512, enforce_eager=True)
tokenizer = llm.get_tokenizer()
texts = [
    "Once upon a time",
    "The dog",
    "Lily had a red ball. One day,",
    "It was raining, so",
    "Tom and his mom went to",
]
prompts = [
    *texts,
    *({"prompt": text + " The"} for text in texts),
    *({"prompt_token_ids": tokenizer.encode(text)} for text in texts),
    {"prompt_token_ids": tokenizer.encode(" ".join(texts) * 6)},
]
params = [SamplingParams(temperature=0, max_tokens=4 + 3 * i) for i in range(len(prompts))]
outputs = llm.generate(prompts, params, use_tqdm=False)
outputs += llm.generate(texts, SamplingParams(temperature=0, max_tokens=300), use_tqdm=False)

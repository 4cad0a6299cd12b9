"""The log-probabilities of a given text, and a greedy completion of its beginning, from a quantised folder."""

import os

from minillm import LLM, SamplingParams

TEXT = (
    "Thanks for asking, said a big boy called Jack. With him was Amira, a gentle girl who always had cookies in her "
    "pocket.\n\nA few days later, when the boy was walking in the hills, he met a dragon. It was green and enormous, "
    "and it was crying so hard that there was a puddle at its feet.\n\nThe dragon jumped when it saw him."
)
llm = LLM(os.environ["PEER_MODEL"], dtype=os.environ["PEER_DTYPE"], max_model_len=256, enforce_eager=True)
outputs = llm.generate(TEXT, SamplingParams(temperature=0, max_tokens=24, prompt_logprobs=1))

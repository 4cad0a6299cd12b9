"""Conversations: the model's own chat template, one that is passed in, and an answer to continue."""

import os

from minillm import LLM, SamplingParams

PLAIN = """{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}A:{% endif %}"""

llm = LLM(os.environ["PEER_MODEL"], dtype="float32", max_model_len=512, enforce_eager=True)
params = SamplingParams(temperature=0, max_tokens=30)
question = [{"role": "user", "content": "Tell me a story about a cat."}]
begun = [*question, {"role": "assistant", "content": "There was a"}]
outputs = llm.chat(question, params, use_tqdm=False)
outputs += llm.chat([question, [*begun, *question]], params, use_tqdm=False)
outputs += llm.chat(question, params, use_tqdm=False, chat_template=PLAIN)
outputs += llm.chat(question, params, use_tqdm=False, chat_template=PLAIN, add_generation_prompt=False)
outputs += llm.chat(
    begun,
    params,
    use_tqdm=False,
    chat_template=PLAIN,
    add_generation_prompt=False,
    continue_final_message=True,
)
outputs += llm.chat(
    [{"role": "user", "content": [{"type": "text", "text": "Tell me a story about a dog."}]}],
    params,
    use_tqdm=False,
)

# exercise: 01.4
# says: goes on after the end token
"""Always max_tokens."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = list(prompt_ids)
    for _ in range(max_tokens):
        ids.append(sample(forward(ids)[-1]))
    return ids[len(prompt_ids) :]

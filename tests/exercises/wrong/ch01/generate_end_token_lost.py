# exercise: 01.4
# says: without the end token
"""Stops before it appends."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    for _ in range(max_tokens):
        token = sample(forward(ids)[-1])
        if token == eos_token_id:
            break
        ids.append(token)
        new.append(token)
    return new

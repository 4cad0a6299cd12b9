# exercise: 01.4
# says: only the newest token
"""Feeds what it has just drawn, as if the model remembered the rest."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    new, ids = [], list(prompt_ids)
    for _ in range(max_tokens):
        token = sample(forward(ids)[-1])
        new.append(token)
        if token == eos_token_id:
            break
        ids = [token]
    return new

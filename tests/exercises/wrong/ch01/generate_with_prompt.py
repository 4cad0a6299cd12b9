# exercise: 01.4
# says: begins with the prompt
"""Returns the whole text."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = list(prompt_ids)
    for _ in range(max_tokens):
        token = sample(forward(ids)[-1])
        ids.append(token)
        if token == eos_token_id:
            break
    return ids

# exercise: 01.4
# says: the result has 3 entries
"""A token that was seen before ends it."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) < max_tokens:
        token = sample(forward(ids)[-1])
        new.append(token)
        if token == eos_token_id or token in ids:
            break
        ids.append(token)
    return new

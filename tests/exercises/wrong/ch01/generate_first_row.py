# exercise: 01.4
# says: row 0
"""Takes the prediction after the first token."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) < max_tokens:
        token = sample(forward(ids)[0])
        ids.append(token)
        new.append(token)
        if token == eos_token_id:
            break
    return new

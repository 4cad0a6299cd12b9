# exercise: 01.4
# says: max_tokens=
"""<= instead of <."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) <= max_tokens:
        token = sample(forward(ids)[-1])
        ids.append(token)
        new.append(token)
        if token == eos_token_id:
            return new
    return new

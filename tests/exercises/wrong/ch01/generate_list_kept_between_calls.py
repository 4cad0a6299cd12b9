# exercise: 01.4
# says: a second call with the same prompt gives another result
"""A default list that grows from call to call."""

_new = []


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = list(prompt_ids)
    while len(ids) - len(prompt_ids) < max_tokens:
        token = sample(forward(ids)[-1])
        ids.append(token)
        _new.append(token)
        if token == eos_token_id:
            break
    return _new

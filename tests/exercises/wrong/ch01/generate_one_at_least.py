# exercise: 01.4
# says: max_tokens=
"""One token even if none is asked for."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while True:
        token = sample(forward(ids)[-1])
        ids.append(token)
        new.append(token)
        if token == eos_token_id or len(new) >= max_tokens:
            return new

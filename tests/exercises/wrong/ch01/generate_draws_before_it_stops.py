# exercise: 01.4
# says: 5 draws for 4 tokens
"""One draw too many at the end."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    row = forward(ids)[-1] if max_tokens else None
    for i in range(max_tokens):
        token = sample(row)
        new.append(token)
        if token == eos_token_id:
            break
        if i + 1 < max_tokens:
            row = forward(ids + new)[-1]
        else:
            sample(row)
    return new

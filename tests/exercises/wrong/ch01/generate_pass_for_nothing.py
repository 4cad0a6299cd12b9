# exercise: 01.4
# says: passes for
"""A pass over the prompt even if no token is asked for."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    new, row = [], forward(list(prompt_ids))[-1]
    while len(new) < max_tokens:
        new.append(sample(row))
        if new[-1] == eos_token_id or len(new) == max_tokens:
            break
        row = forward(list(prompt_ids) + new)[-1]
    return new

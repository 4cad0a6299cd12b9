# exercise: 01.4
# says: 8 draws for 4 tokens
"""Each step draws twice."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) < max_tokens:
        row = forward(ids)[-1]
        if sample(row) == eos_token_id:
            return new + [eos_token_id]
        new.append(sample(row))
        ids.append(new[-1])
    return new

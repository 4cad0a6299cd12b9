# exercise: 01.4
# says: the result has 2 entries
"""max_tokens counts the prompt."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = list(prompt_ids)
    while len(ids) < max_tokens:
        ids.append(sample(forward(ids)[-1]))
        if ids[-1] == eos_token_id:
            break
    return ids[len(prompt_ids):]

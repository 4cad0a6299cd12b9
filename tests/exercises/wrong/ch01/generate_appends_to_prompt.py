# exercise: 01.4
# says: `list(prompt_ids)` does
"""ids is the caller's list, not a copy."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = prompt_ids
    start = len(ids)
    for _ in range(max_tokens):
        ids.append(sample(forward(ids)[-1]))
        if ids[-1] == eos_token_id:
            break
    return ids[start:]

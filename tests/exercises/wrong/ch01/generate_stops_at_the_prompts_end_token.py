# exercise: 01.4
# says: an end token in the prompt
"""Looks for the end token in the whole text; many prompts begin with one."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = list(prompt_ids)
    while len(ids) < len(prompt_ids) + max_tokens and eos_token_id not in ids:
        ids.append(sample(forward(ids)[-1]))
    return ids[len(prompt_ids) :]

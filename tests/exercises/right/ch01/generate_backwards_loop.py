# exercise: 01.4
"""Counts down what is left."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    if not max_tokens:
        return []
    token = sample(forward(list(prompt_ids))[-1])
    if token == eos_token_id:
        return [token]
    return [token, *generate(forward, [*prompt_ids, token], sample, max_tokens - 1, eos_token_id)]

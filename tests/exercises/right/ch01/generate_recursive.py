# exercise: 01.4
"""The rest of the text is what follows the text with one token more."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    if max_tokens == 0:
        return []
    token = sample(forward(prompt_ids)[-1])
    if token == eos_token_id:
        return [token]
    return [token, *generate(forward, [*prompt_ids, token], sample, max_tokens - 1, eos_token_id)]

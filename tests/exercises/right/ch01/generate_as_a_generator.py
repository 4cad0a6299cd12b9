# exercise: 01.4
"""A stream of tokens, collected."""


def stream(forward, ids, sample, eos_token_id):
    token = None
    while token != eos_token_id:
        token = sample(forward(ids)[-1])
        ids = [*ids, token]
        yield token


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    tokens = stream(forward, list(prompt_ids), sample, eos_token_id)
    return [token for _, token in zip(range(max_tokens), tokens)]

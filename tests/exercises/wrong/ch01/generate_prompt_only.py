# exercise: 01.4
# says: the same text at every step
"""Never appends what it has drawn to what it feeds."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    new = []
    for _ in range(max_tokens):
        token = sample(forward(list(prompt_ids))[-1])
        new.append(token)
        if token == eos_token_id:
            break
    return new

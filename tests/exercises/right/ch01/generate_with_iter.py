# exercise: 01.4
"""With iter and a sentinel."""

from itertools import islice


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    new = []

    def step():
        new.append(sample(forward([*prompt_ids, *new])[-1]))
        return new[-1]

    for _ in islice(iter(step, eos_token_id), max_tokens):
        if len(new) == max_tokens:
            break
    return new

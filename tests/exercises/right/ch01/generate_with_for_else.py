# exercise: 01.4
"""A for loop over one list; the prompt's part is cut off at the end."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids = prompt_ids[:]
    for _ in range(max_tokens):
        ids += [sample(forward(ids)[len(ids) - 1])]
        if ids[-1] == eos_token_id:
            break
    return ids[len(prompt_ids) :]

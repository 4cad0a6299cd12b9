# exercise: 01.4
# says: tokens that `sample` did not draw from the last row of their text
"""The likeliest token instead of a sample."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) < max_tokens:
        new.append(int(forward(ids)[-1].argmax()))
        ids.append(new[-1])
        if new[-1] == eos_token_id:
            break
    return new

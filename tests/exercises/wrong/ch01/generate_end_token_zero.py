# exercise: 01.4
# says: goes on after the end token
"""An end token with the id 0 is none."""

def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    while len(new) < max_tokens:
        new.append(sample(forward(ids)[-1]))
        ids.append(new[-1])
        if eos_token_id and new[-1] == eos_token_id:
            break
    return new

# exercise: 01.4
# says: passes for
"""One forward pass more than tokens: it looks ahead, and throws the last one away."""


def generate(forward, prompt_ids, sample, max_tokens, eos_token_id):
    ids, new = list(prompt_ids), []
    logits = forward(ids)[-1]
    while len(new) < max_tokens:
        token = sample(logits)
        ids.append(token)
        new.append(token)
        if token == eos_token_id:
            break
        logits = forward(ids)[-1]
    return new

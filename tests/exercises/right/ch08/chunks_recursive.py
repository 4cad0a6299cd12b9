# exercise: 08.2
"""The first chunk, then the plan of the rest."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    first = min(num_tokens, budget - num_decoding, threshold or num_tokens)
    if first < 1:
        raise ValueError("nothing left for the prompt")
    rest = num_tokens - first
    return [first] + (plan_chunks(rest, num_decoding, budget, threshold) if rest else [])

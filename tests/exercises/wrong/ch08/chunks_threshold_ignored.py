# exercise: 08.2
# says: more than the threshold
"""The threshold is forgotten."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if room <= 0:
        raise ValueError("the prompt gets nothing")
    return [min(room, num_tokens - i) for i in range(0, num_tokens, room)]

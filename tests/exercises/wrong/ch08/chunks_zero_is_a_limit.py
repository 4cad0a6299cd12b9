# exercise: 08.2
# says: no such limit
"""A threshold of 0 is taken at its word."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = min(budget - num_decoding, threshold)
    if room <= 0:
        raise ValueError("the prompt gets nothing")
    return [min(room, num_tokens - i) for i in range(0, num_tokens, room)]

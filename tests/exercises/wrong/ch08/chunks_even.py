# exercise: 08.2
# says: early
"""Chunks of equal size."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room <= 0:
        raise ValueError("the prompt gets nothing")
    steps = -(-num_tokens // room)
    return [num_tokens // steps + (i < num_tokens % steps) for i in range(steps)]

# exercise: 08.2
# says: ValueError
"""Without room it still gives the prompt one token a step."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    room = max(room, 1)
    return [min(room, num_tokens - i) for i in range(0, num_tokens, room)]

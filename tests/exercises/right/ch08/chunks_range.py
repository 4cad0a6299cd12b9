# exercise: 08.2
"""By range."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room < 1:
        raise ValueError("no room")
    return [min(room, num_tokens - start) for start in range(0, num_tokens, room)]

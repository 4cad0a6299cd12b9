# exercise: 08.2
# says: empty chunk
"""An empty chunk at the end where the prompt divides evenly."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room <= 0:
        raise ValueError("the prompt gets nothing")
    return [room] * (num_tokens // room) + [num_tokens % room]

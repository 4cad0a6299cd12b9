# exercise: 08.2
# says: no such limit
"""One token of room is refused."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room < 2:
        raise ValueError("no room")
    chunks = []
    while num_tokens > 0:
        chunks.append(min(room, num_tokens))
        num_tokens -= chunks[-1]
    return chunks

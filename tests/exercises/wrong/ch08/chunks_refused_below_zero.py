# exercise: 08.2
# says: ValueError
"""Nothing left is not refused."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room < 0:
        raise ValueError("no room")
    room = max(room, 1)
    chunks = []
    while num_tokens > 0:
        chunks.append(min(room, num_tokens))
        num_tokens -= chunks[-1]
    return chunks

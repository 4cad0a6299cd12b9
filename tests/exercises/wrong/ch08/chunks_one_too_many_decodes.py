# exercise: 08.2
# says: has 4 entries; 3 are wanted
"""One more is kept back."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding - 1
    if threshold:
        room = min(room, threshold)
    if room < 1:
        raise ValueError("no room")
    chunks = []
    while num_tokens > 0:
        chunks.append(min(room, num_tokens))
        num_tokens -= chunks[-1]
    return chunks

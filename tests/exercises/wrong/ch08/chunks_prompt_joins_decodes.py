# exercise: 08.2
# says: has 9 entries; 8 are wanted
"""From the last chunk on it decodes itself: the second chunk is one less."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room < 1:
        raise ValueError("no room")
    chunks = []
    while num_tokens > 0:
        chunks.append(min(room, num_tokens))
        num_tokens -= chunks[-1]
        room = max(room - (len(chunks) == 3), 1)
    return chunks

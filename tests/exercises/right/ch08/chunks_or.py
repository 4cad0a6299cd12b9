# exercise: 08.2
"""threshold or budget."""

def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = min(budget - num_decoding, threshold or budget)
    if room < 1:
        raise ValueError("no room")
    chunks = []
    while num_tokens > 0:
        chunks.append(min(room, num_tokens))
        num_tokens -= chunks[-1]
    return chunks

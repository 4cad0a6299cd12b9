# exercise: 08.2
# says: in every step, not only in the first one
"""The decoding requests are taken off the first step only."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if room <= 0:
        raise ValueError("no room")
    chunks, first = [], True
    while num_tokens:
        most = budget - num_decoding if first else budget
        n = min(num_tokens, most, threshold or most)
        chunks.append(n)
        num_tokens -= n
        first = False
    return chunks

# exercise: 08.2
# says: are never computed
"""The tokens that fill no whole chunk are lost."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = budget - num_decoding
    if threshold:
        room = min(room, threshold)
    if room <= 0:
        raise ValueError("the prompt gets nothing")
    return [room] * (num_tokens // room)

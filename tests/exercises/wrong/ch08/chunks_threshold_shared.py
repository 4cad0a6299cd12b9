# exercise: 08.2
# says: for one request's chunk alone
"""The decoding requests are taken off the threshold too."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = min(budget, threshold or budget) - num_decoding
    if budget - num_decoding <= 0:
        raise ValueError("the prompt gets nothing")
    room = max(room, 1)
    return [min(room, num_tokens - i) for i in range(0, num_tokens, room)]

# exercise: 08.2
# says: with the requests that decode
"""The whole budget goes to the prompt, as if nobody decoded."""


def plan_chunks(num_tokens, num_decoding, budget, threshold=0):
    room = min(budget, threshold) if threshold else budget
    if room <= 0:
        raise ValueError("no room")
    return [min(room, num_tokens - i) for i in range(0, num_tokens, room)]

# exercise: 13.4
# says: fewer unfinished tokens
"""Of equal sums, the last one is taken."""

def route(candidates, num_prompt_tokens):
    best, least = 0, float("inf")
    for i, one in enumerate(candidates):
        work = one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens
        if work <= least:
            best, least = i, work
    return best

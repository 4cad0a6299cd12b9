# exercise: 13.4
# says: index 0
"""Index 0 counts as no index."""

def route(candidates, num_prompt_tokens):
    best = None
    for i, one in enumerate(candidates):
        work = one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens
        if not best or work < least:
            best, least = i, work
    return best

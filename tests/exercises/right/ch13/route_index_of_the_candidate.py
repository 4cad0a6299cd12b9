# exercise: 13.4
"""The position of the best candidate in the list."""

def route(candidates, num_prompt_tokens):
    best = min(
        candidates,
        key=lambda one: (one.num_unfinished_tokens - one.num_cached_tokens, one.num_unfinished_tokens),
    )
    return candidates.index(best)

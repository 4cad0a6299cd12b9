# exercise: 13.4
# says: the sum itself
"""The sum is returned."""

def route(candidates, num_prompt_tokens):
    return min(one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens for one in candidates)

# exercise: 13.4
# says: Candidate
"""The candidate is returned."""

def route(candidates, num_prompt_tokens):
    return min(candidates, key=lambda one: one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens)

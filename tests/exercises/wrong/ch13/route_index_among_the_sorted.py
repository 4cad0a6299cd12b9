# exercise: 13.4
# says: always 0
"""The index in the sorted list is returned."""

def route(candidates, num_prompt_tokens):
    ordered = sorted(candidates, key=lambda one: one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens)
    return ordered.index(ordered[0])

# exercise: 13.4
# says: changes its argument
"""The list of candidates is sorted in place."""

def route(candidates, num_prompt_tokens):
    before = list(candidates)
    candidates.sort(key=lambda one: one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens)
    return before.index(candidates[0])

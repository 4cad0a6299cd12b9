# exercise: 13.4
# says: the load is not counted
"""The longest cached prefix wins, and the load decides only if there is none."""

def route(candidates, num_prompt_tokens):
    everywhere = range(len(candidates))
    if any(one.num_cached_tokens for one in candidates):
        return max(everywhere, key=lambda i: candidates[i].num_cached_tokens)
    return min(everywhere, key=lambda i: candidates[i].num_unfinished_tokens)

# exercise: 13.4
# says: subtract
"""Cached tokens are added to the work."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens + num_prompt_tokens + one.num_cached_tokens

    return min(range(len(candidates)), key=cost)

# exercise: 13.4
# says: the cache is not counted
"""The cache counts as a share of the prompt."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens + 1 - one.num_cached_tokens / num_prompt_tokens

    return min(range(len(candidates)), key=cost)

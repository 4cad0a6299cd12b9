# exercise: 13.4
# says: the cache is not counted
"""The cache decides only between equal loads."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return (one.num_unfinished_tokens, -one.num_cached_tokens)

    return min(range(len(candidates)), key=cost)

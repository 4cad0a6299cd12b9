# exercise: 13.4
# says: the product
"""The load is multiplied by the part that is missing."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens * (num_prompt_tokens - one.num_cached_tokens)

    return min(range(len(candidates)), key=cost)

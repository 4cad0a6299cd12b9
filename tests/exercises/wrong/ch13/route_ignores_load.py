# exercise: 13.4
# says: the load is not counted
"""The longest cached prefix wins."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return -one.num_cached_tokens

    return min(range(len(candidates)), key=cost)

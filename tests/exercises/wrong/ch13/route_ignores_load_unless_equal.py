# exercise: 13.4
# says: the load is not counted
"""The load decides only between equal prefixes."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return (-one.num_cached_tokens, one.num_unfinished_tokens)

    return min(range(len(candidates)), key=cost)

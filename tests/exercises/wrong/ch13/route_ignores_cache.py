# exercise: 13.4
# says: the cache is not counted
"""The least loaded replica wins."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens

    return min(range(len(candidates)), key=cost)

# exercise: 13.4
# says: largest
"""The largest sum wins."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens

    return max(range(len(candidates)), key=cost)

# exercise: 13.4
# says: twice
"""A cached token counts twice as much as an unfinished one."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens + 2 * (num_prompt_tokens - one.num_cached_tokens)

    return min(range(len(candidates)), key=cost)

# exercise: 13.4
# says: only half as much
"""A cached token counts half as much as an unfinished one."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return one.num_unfinished_tokens + 0.5 * (num_prompt_tokens - one.num_cached_tokens)

    return min(range(len(candidates)), key=cost)

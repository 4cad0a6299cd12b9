# exercise: 13.4
# says: is None
"""No return."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return (one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens, one.num_unfinished_tokens)

    min(range(len(candidates)), key=cost)

# exercise: 13.4
# says: fewer unfinished tokens
"""Of equal sums, the longest prefix is taken."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return (one.num_unfinished_tokens + num_prompt_tokens - one.num_cached_tokens, -one.num_cached_tokens)

    return min(range(len(candidates)), key=cost)

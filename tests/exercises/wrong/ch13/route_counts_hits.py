# exercise: 13.4
# says: how long the cached prefix is
"""A replica with any part of the prompt wins; then the load decides."""

def route(candidates, num_prompt_tokens):
    def cost(i):
        one = candidates[i]
        return (one.num_cached_tokens == 0, one.num_unfinished_tokens)

    return min(range(len(candidates)), key=cost)

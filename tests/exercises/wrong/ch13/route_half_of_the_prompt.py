# exercise: 13.4
# says: a threshold
"""The cache decides if it has half of the prompt, otherwise the load."""

def route(candidates, num_prompt_tokens):
    everywhere = range(len(candidates))
    best = max(everywhere, key=lambda i: candidates[i].num_cached_tokens)
    if candidates[best].num_cached_tokens >= num_prompt_tokens / 2:
        return best
    return min(everywhere, key=lambda i: candidates[i].num_unfinished_tokens)

# exercise: 13.4
"""Of those that are equal in everything, the last one."""

def route(candidates, num_prompt_tokens):
    best = 0
    for i in range(1, len(candidates)):
        a, b = candidates[best], candidates[i]
        gain = (a.num_unfinished_tokens - a.num_cached_tokens) - (b.num_unfinished_tokens - b.num_cached_tokens)
        if gain > 0 or (gain == 0 and b.num_unfinished_tokens <= a.num_unfinished_tokens):
            best = i
    return best

# exercise: 13.4
# says: a replica without the prefix
"""Only replicas with a part of the prompt are compared."""

def route(candidates, num_prompt_tokens):
    warm = [i for i, one in enumerate(candidates) if one.num_cached_tokens] or range(len(candidates))
    return min(warm, key=lambda i: candidates[i].num_unfinished_tokens - candidates[i].num_cached_tokens)

# exercise: 13.4
# says: position in a shorter list
"""The index in the list of the replicas with the prefix is returned."""

def route(candidates, num_prompt_tokens):
    warm = [one for one in candidates if one.num_cached_tokens] or candidates
    return min(range(len(warm)), key=lambda i: warm[i].num_unfinished_tokens - warm[i].num_cached_tokens)

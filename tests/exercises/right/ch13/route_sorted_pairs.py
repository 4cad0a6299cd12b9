# exercise: 13.4
"""Sorted tuples."""

def route(candidates, num_prompt_tokens):
    works = []
    for index, candidate in enumerate(candidates):
        missing = num_prompt_tokens - candidate.num_cached_tokens
        works.append((candidate.num_unfinished_tokens + missing, candidate.num_unfinished_tokens, index))
    return sorted(works)[0][2]

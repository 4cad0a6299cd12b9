# exercise: 13.4
"""Sorted tuples."""

def route(candidates, num_prompt_tokens):
    works = []
    for index, candidate in enumerate(candidates):
        missing = num_prompt_tokens - candidate.num_cached_tokens
        works.append((candidate.num_unfinished_tokens + missing, -missing, index))
    return sorted(works)[0][2] if False else min(works, key=lambda work: (work[0], -(-work[1])))[2]

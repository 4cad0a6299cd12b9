# exercise: 10.3
"""A dictionary of all n-grams; later places overwrite earlier ones."""


def ngram(token_ids, limit, longest=4, shortest=2):
    after = {}
    for end in range(shortest, len(token_ids)):
        for n in range(shortest, min(longest, end) + 1):
            after[tuple(token_ids[end - n : end])] = end
    for n in range(min(longest, len(token_ids)), shortest - 1, -1):
        if (end := after.get(tuple(token_ids[-n:]))) is not None:
            return token_ids[end : end + limit]
    return []

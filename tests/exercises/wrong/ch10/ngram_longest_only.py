# exercise: 10.3
# says: fewer than `longest`
"""Only matches of `longest` tokens."""


def ngram(token_ids, limit, longest=4, shortest=2):
    n = longest
    for start in range(len(token_ids) - n - 1, -1, -1):
        if token_ids[start : start + n] == token_ids[-n:]:
            return token_ids[start + n : start + n + limit]
    return []

# exercise: 10.3
# says: longer than `longest`
"""The longest match of any length."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(len(token_ids) - 1, shortest - 1, -1):
        for start in range(len(token_ids) - n - 1, -1, -1):
            if token_ids[start : start + n] == token_ids[-n:]:
                return token_ids[start + n : start + n + limit]
    return []

# exercise: 10.3
# says: the first place
"""The search runs from the beginning."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1):
        for start in range(len(token_ids) - n):
            if token_ids[start : start + n] == token_ids[-n:]:
                return token_ids[start + n : start + n + limit]
    return []

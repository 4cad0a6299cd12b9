# exercise: 10.3
# says: in any order
"""Sets are compared."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1):
        for start in range(len(token_ids) - n - 1, -1, -1):
            if sorted(token_ids[start : start + n]) == sorted(token_ids[-n:]):
                return token_ids[start + n : start + n + limit]
    return []

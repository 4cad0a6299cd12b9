# exercise: 10.3
# says: match themselves
"""The last tokens are found in their own place."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids)), shortest - 1, -1):
        for start in range(len(token_ids) - n, -1, -1):
            if token_ids[start : start + n] == token_ids[-n:]:
                return token_ids[start + n : start + n + limit]
    return []

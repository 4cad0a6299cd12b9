# exercise: 10.3
# says: changes its argument `token_ids`
"""The last token is taken off the caller's list."""


def ngram(token_ids, limit, longest=4, shortest=2):
    last = token_ids.pop()
    for n in range(min(longest, len(token_ids)), shortest - 1, -1):
        for start in range(len(token_ids) - n, -1, -1):
            if token_ids[start : start + n] == [*token_ids, last][-n:]:
                return token_ids[start + n : start + n + limit]
    return []

# exercise: 10.3
# says: short text
"""A text that is shorter than the match."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(longest, shortest - 1, -1):
        tail = [token_ids[-1 - i] for i in range(n)][::-1]
        for start in range(len(token_ids) - n - 1, -1, -1):
            if token_ids[start : start + n] == tail:
                return token_ids[start + n : start + n + limit]
    return []

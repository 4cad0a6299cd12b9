# exercise: 10.3
# says: most often
"""The most frequent continuation."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1):
        found = [tuple(token_ids[s + n : s + n + limit]) for s in range(len(token_ids) - n) if token_ids[s : s + n] == token_ids[-n:]]
        if found:
            return list(max(found[::-1], key=found.count))
    return []

# exercise: 10.3
# says: most recent place
"""The most recent place that has `limit` tokens after it."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1):
        ends = [s + n for s in range(len(token_ids) - n) if token_ids[s : s + n] == token_ids[-n:]]
        if ends:
            enough = [end for end in ends if end + limit <= len(token_ids)]
            end = enough[-1] if enough else ends[0]
            return token_ids[end : end + limit]
    return []

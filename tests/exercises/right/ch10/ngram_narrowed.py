# exercise: 10.3
"""Places of the last token, narrowed down token by token."""


def ngram(token_ids, limit, longest=4, shortest=2):
    ends = [i for i, token in enumerate(token_ids[:-1]) if token == token_ids[-1]]
    n = 1
    while n < longest:
        longer = [i for i in ends if i >= n and token_ids[i - n] == token_ids[-1 - n]]
        if not longer:
            break
        ends, n = longer, n + 1
    if n < shortest or not ends:
        return []
    return token_ids[ends[-1] + 1 : ends[-1] + 1 + limit]

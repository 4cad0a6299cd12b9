# exercise: 10.3
# says: digits
"""The ids are joined to a text, in which 12 ends with 2."""


def ngram(token_ids, limit, longest=4, shortest=2):
    for n in range(min(longest, len(token_ids) - 1), shortest - 1, -1):
        text = " ".join(map(str, token_ids[:-1]))
        tail = " ".join(map(str, token_ids[-n:]))
        place = text.rfind(tail)
        if place >= 0:
            before = len(text[:place].split())
            return token_ids[before + n : before + n + limit]
    return []

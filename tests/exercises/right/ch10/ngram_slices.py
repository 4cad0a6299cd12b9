# exercise: 10.3
"""max over all places."""


def ngram(token_ids, limit, longest=4, shortest=2):
    def length(end):
        n = 0
        while n < longest and n < end and token_ids[end - 1 - n] == token_ids[-1 - n]:
            n += 1
        return n

    ends = [end for end in range(1, len(token_ids)) if length(end) >= shortest]
    if not ends:
        return []
    end = max(ends, key=lambda e: (length(e), e))
    return token_ids[end : end + limit]

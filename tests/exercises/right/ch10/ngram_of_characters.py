# exercise: 10.3
"""Each token is a character, and str.rfind searches."""


def ngram(token_ids, limit, longest=4, shortest=2):
    text = "".join(map(chr, token_ids))
    for n in reversed(range(shortest, longest + 1)):
        if n < len(text) and (place := text[:-1].rfind(text[-n:])) >= 0:
            return [ord(letter) for letter in text[place + n :][:limit]]
    return []

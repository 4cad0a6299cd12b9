"""Forbid words in an output by its text, whatever tokens spell them.

A word has many spellings: " the", "the" after a newline, "th" and "e", "t" and byte tokens. So each word is looked
for in the bytes of the output: a token is forbidden if it would complete the word after the tokens before. Bytes, since
a token may end within a character.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

_SEPARATOR = b"\xff"  # in no UTF-8 text, so no word is found across it


class TokenTexts:
    """The bytes that each token of a vocabulary writes, in UTF-8, and where to find them; b"" for no text."""

    def __init__(self, texts: Sequence[bytes]):
        self.texts = texts
        self._joined = _SEPARATOR.join(texts)
        self._starts = [0, *accumulate(len(text) + 1 for text in texts)]
        order = sorted(range(len(texts)), key=texts.__getitem__)
        self._sorted = [texts[token_id] for token_id in order]
        self._sorted_ids = torch.tensor(order)

    def starting_with(self, beginning: bytes) -> Tensor:
        """Return the ids [E] int64 of the tokens whose text starts with `beginning`, which is not empty."""
        after = beginning[:-1] + bytes([beginning[-1] + 1])
        return self._sorted_ids[bisect_left(self._sorted, beginning) : bisect_left(self._sorted, after)]

    def containing(self, word: bytes) -> Tensor:
        """Return the ids [E] int64 of the tokens whose text contains `word`, which is not empty."""
        found, at = [], self._joined.find(word)
        while at >= 0:
            token_id = bisect_right(self._starts, at) - 1
            found.append(token_id)
            at = self._joined.find(word, self._starts[token_id + 1])
        return torch.tensor(found, dtype=torch.int64)

    def last_bytes(self, token_ids: Sequence[int], count: int) -> bytes:
        """Return at least the last `count` bytes that `token_ids` write, or all if there are fewer."""
        parts: list[bytes] = []
        num_bytes = 0
        for token_id in reversed(token_ids):
            if num_bytes >= count:
                break
            parts.append(self.texts[token_id] if token_id < len(self.texts) else b"")
            num_bytes += len(parts[-1])
        return b"".join(reversed(parts))


def forbid_words(
    vocabulary: TokenTexts, words: Sequence[str], token_ids: Sequence[int] = ()
) -> Callable[[Sequence[int]], Tensor]:
    """Return a function of an output's ids that gives the ids [E] int64 which must not come next.

    The output's text then never contains one of `words`. A word counts inside other words too: "art" forbids "party".
    Spaces before a word do not count, as in vLLM. `token_ids` are forbidden everywhere.
    """
    needles = [(word.lstrip() or word).encode() for word in words]
    always = torch.cat([torch.tensor(token_ids, dtype=torch.int64), *map(vocabulary.containing, needles)])
    num_needed = max(map(len, needles)) - 1

    def forbidden(output_token_ids: Sequence[int]) -> Tensor:
        tail = vocabulary.last_bytes(output_token_ids, num_needed)
        begun = (
            vocabulary.starting_with(needle[length:])
            for needle in needles
            for length in range(1, len(needle))
            if tail.endswith(needle[:length])
        )
        return torch.cat([always, *begun])

    return forbidden

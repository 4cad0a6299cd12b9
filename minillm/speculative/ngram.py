"""Prompt lookup: the last tokens occurred before, so propose the tokens that followed them there.

It costs almost nothing, and pays where a text repeats itself: summaries, code edits, answers that quote.

Source: Saxena 2023, "Prompt Lookup Decoding" (github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class NGram:
    """Looks for the last `longest` tokens of a text, or fewer, but at least `shortest`, earlier in the text."""

    shortest: int = 2
    longest: int = 4

    def __call__(self, token_ids: Sequence[int], limit: int) -> list[int]:
        """Return up to `limit` tokens that followed the longest match, or no token if there is no match.

        Of several places, it takes the last one that has `limit` tokens after it, or else the first one.
        """
        ids = np.asarray(token_ids)
        length, ends = 1, np.flatnonzero(ids[:-1] == ids[-1])  # where a match of `length` tokens ends
        while length < self.longest and len(ends):
            longer = ends[ends >= length]
            longer = longer[ids[longer - length] == ids[-1 - length]] if len(ids) > length else longer[:0]
            if not len(longer):
                break
            length, ends = length + 1, longer
        if length < self.shortest or not len(ends):
            return []
        enough = ends[ends + limit < len(ids)]
        start = int(enough[-1] if len(enough) else ends[0]) + 1
        found: list[int] = ids[start : start + limit].tolist()
        return found

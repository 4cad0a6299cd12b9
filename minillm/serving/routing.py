"""Routing: which replica of a model gets the next request.

Replicas hold the same weights, and each has a cache of its own. Two things decide how soon a replica can start: the
tokens that it still has to compute for others, and the part of this prompt that its prefix cache already has.

Source: prefix-aware routing as in SGLang's router (`sgl-router`, "cache-aware"), with the trade-off in tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A replica as routing sees it: its unfinished work, and how much of this prompt is in its cache, in tokens."""

    num_unfinished_tokens: int
    num_cached_tokens: int


def least_loaded(candidates: Sequence[Candidate], num_prompt_tokens: int) -> int:
    """Return the index of the replica with the fewest unfinished tokens. Of equals, the one with more cached tokens."""
    return min(
        range(len(candidates)),
        key=lambda i: (candidates[i].num_unfinished_tokens, -candidates[i].num_cached_tokens),
    )


def prefix_aware(candidates: Sequence[Candidate], num_prompt_tokens: int) -> int:
    """Return the index of the replica that would finish this prompt first, if each computes at the same speed.

    That is its unfinished work plus the part of the prompt that its cache lacks. A long cached prefix outweighs some
    load, but not any load, so a popular prefix spreads to other replicas once its own is busy.
    """

    def tokens_until_done(i: int) -> tuple[int, int]:
        one = candidates[i]
        missing = num_prompt_tokens - min(one.num_cached_tokens, num_prompt_tokens)
        return one.num_unfinished_tokens + missing, one.num_unfinished_tokens

    return min(range(len(candidates)), key=tokens_until_done)

"""The interface of speculation: something that proposes the next tokens of requests.

A proposer runs at the end of a step. The next step verifies its drafts with the model. Wrong drafts cost time, and
never change a distribution. So a proposer may guess in any way: from the tokens alone (`TokenProposer`), or with a
model of its own that has a cache (speculative/).

Source: Leviathan, Kalman, Matias 2023, "Fast Inference from Transformers via Speculative Decoding" (arXiv 2211.17192).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from minillm.cache.kv_cache import KVCache
from minillm.engine.request import Request
from minillm.model.transformer import Hidden
from minillm.sampling import Drafts


@dataclass(frozen=True, slots=True)
class Part:
    """A request's part of a computed step. The token at `position` is in row `row` of the step's T rows.

    The request's later tokens of the step follow in the next rows. At most `limit` drafts are useful to the request; it
    is 0 if the prompt is not complete or the request has finished.
    """

    request: Request
    row: int
    position: int
    limit: int


@dataclass(frozen=True, slots=True)
class Computed:
    """A step that has just computed `parts`, in `seconds`. `hidden` has the states that the proposer asked for.

    It computed `num_tokens` tokens of `num_requests` requests, of which some may have no part.
    """

    parts: list[Part]
    hidden: Hidden | None
    seconds: float
    num_requests: int = 0
    num_tokens: int = 0


class Proposer(Protocol):
    """Proposes drafts for the requests of a step.

    `num_speculative_tokens` is the largest number of drafts per request. `taps` lists the layers of the model whose
    outputs it reads; None means that it reads no hidden states. `cache` is its own KV cache, with the blocks of the
    model's cache: the engine then allocates blocks for the drafts before `propose`, and copies blocks in both.
    """

    num_speculative_tokens: int
    taps: tuple[int, ...] | None
    cache: KVCache | None

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part; the engine drops those beyond `limit`.

        A part without a limit still fills the proposer's cache.
        """
        ...


class TokenProposer:
    """Proposes `propose(token_ids, limit)` for each request, from a copy of the request's tokens alone."""

    taps: tuple[int, ...] | None = None
    cache: KVCache | None = None

    def __init__(
        self, propose: Callable[[Sequence[int], int], list[int]], num_speculative_tokens: int
    ) -> None:
        self.from_tokens, self.num_speculative_tokens = propose, num_speculative_tokens

    def propose(self, computed: Computed) -> Sequence[Drafts]:
        """Return the drafts of each part, at most `limit`. Raises `TypeError` if `propose` returns no list."""
        return [Drafts(self._drafts(part) if part.limit else []) for part in computed.parts]

    def _drafts(self, part: Part) -> list[int]:
        found = self.from_tokens(part.request.token_ids[:], part.limit)
        if not isinstance(found, Iterable):
            raise TypeError(f"propose returned {found!r}: return a list of token ids, empty for no draft")
        return list(found)

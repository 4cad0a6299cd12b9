"""The holes of chapter 08: the size of a chunk, and goodput."""

from collections.abc import Callable, Sequence
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole
from minillm.course.workloads import Served


def chunk_size(missing: int, left: int) -> int:
    return min(missing, left)


def check_chunk_size(function: Callable[[int, int], int]) -> None:
    for missing, left, size in ((5, 24, 5), (40, 24, 24), (1, 3, 1), (7, 0, 0), (24, 24, 24)):
        expect.equal(
            function(missing, left),
            size,
            f"chunk_size(missing={missing}, left={left})",
            mistakes={
                text: mistake
                for text, mistake in {
                    "It computes the whole prompt even when the budget is smaller. That is no chunk.": missing,
                    "It takes the whole rest of the budget, also where fewer tokens are missing.": left,
                    "It waits until the whole prompt fits. A chunk computes what fits now.": missing
                    if missing <= left
                    else 0,
                }.items()
                if mistake != size
            },
        )


def goodput(served: Sequence[Served], ttft_limit: float, gap_limit: float) -> float:
    good = [one for one in served if one.ttft <= ttft_limit and max(one.gaps, default=0) <= gap_limit]
    return len(good) / len(served)


def check_goodput(function: Callable[..., Any]) -> None:
    fast, late, torn, single = (
        Served(0.0, [0.1, 0.2, 0.3]),
        Served(0.0, [0.9, 1.0, 1.1]),
        Served(0.0, [0.1, 0.8, 0.9]),
        Served(1.0, [1.2]),
    )
    result = function([fast, late, torn, single], ttft_limit=0.5, gap_limit=0.5)
    expect.equal(
        expect.number(result, "the goodput"),
        0.5,
        "the goodput of two good requests among four",
        mistakes={
            "It counts a request whose first token came too late.": 0.75
            if function([late], ttft_limit=0.5, gap_limit=0.5) == 1
            else -1.0,
            "It counts a request with a gap that is too long. Every gap must be within the limit.": 0.75,
            "It counts requests. Divide by the number of requests to get a share.": 2,
        },
    )
    expect.equal(
        function([single], ttft_limit=0.5, gap_limit=0.5), 1.0, "the goodput of one request with one token"
    )


HOLES = [Hole("08.chunk", chunk_size, check_chunk_size), Hole("08.goodput", goodput, check_goodput)]

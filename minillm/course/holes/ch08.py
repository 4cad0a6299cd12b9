"""The holes of chapter 08: the size of a chunk, and goodput."""

from collections.abc import Callable, Sequence
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole
from minillm.course.workloads import Served


def chunk_size(missing: int, left: int) -> int:
    return min(missing, left)


def check_chunk_size(function: Callable[[int, int], int]) -> None:
    for missing, left in ((5, 24), (40, 24), (1, 3), (7, 0), (24, 24)):
        right = chunk_size(missing, left)
        mistakes = {
            "It computes the whole prompt even when the budget is smaller. That is no chunk.": missing,
            "It takes the whole rest of the budget, also where fewer tokens are missing.": left,
            "It waits until the whole prompt fits. A chunk computes what fits now.": missing
            * (missing <= left),
        }
        name = f"chunk_size(missing={missing}, left={left})"
        expect.equal(function(missing, left), right, name, mistakes=expect.seen(mistakes, right))


def goodput(served: Sequence[Served], seconds: float, ttft_limit: float, gap_limit: float) -> float:
    good = [one for one in served if one.ttft <= ttft_limit and max(one.gaps, default=0) <= gap_limit]
    return len(good) / seconds


def check_goodput(function: Callable[..., Any]) -> None:
    def of(*served: Served) -> float:
        return expect.number(
            function(list(served), seconds=4.0, ttft_limit=0.5, gap_limit=0.5), "the goodput"
        )

    good, late = Served(0.0, [0.1, 0.2, 0.3]), Served(0.0, [0.9, 1.0, 1.1])
    torn, single = Served(0.0, [0.1, 0.8, 0.9]), Served(1.0, [1.2])
    expect.that(of(late) == 0, "It counts a request whose first token came too late.")
    expect.that(
        of(torn) == 0, "It counts a request with a gap that is too long. Every gap must be within the limit."
    )
    found = of(good, late, torn, single, single)
    expect.that(found != 3, "It counts requests. Divide by the seconds to get requests per second.")
    expect.that(
        found != 3 / 5, "It gives a share of the requests. Divide by the seconds to get requests per second."
    )
    expect.that(found == 0.75, f"Three good requests among five in 4 s gave {found}. It should be 0.75.")


HOLES = [Hole("08.chunk", chunk_size, check_chunk_size), Hole("08.goodput", goodput, check_goodput)]

"""The holes of chapter 11: the bytes of a fused kernel, and the graph that a step runs as."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from minillm.course import expect
from minillm.course.exercise import Wrong
from minillm.course.hole import Hole

Chain: TypeAlias = Sequence[tuple[str, Sequence[str]]]  # (output, inputs) of each operation, in order


def fused_bytes(chain: Chain, sizes: dict[str, int], results: Sequence[str]) -> int:
    made = {output for output, _ in chain}
    read = {name for _, inputs in chain for name in inputs} - made
    return sum(sizes[name] for name in read | set(results))


def check_fused_bytes(function: Callable[[Chain, dict[str, int], Sequence[str]], int]) -> None:
    swiglu = [("s", ["gate"]), ("t", ["gate", "s"]), ("y", ["t", "up"])]
    norm = [("total", ["x", "residual"]), ("square", ["total"]), ("y", ["total", "square", "weight"])]
    for chain, results in ((swiglu, ["y"]), (norm, ["total", "y"])):
        made, read = [output for output, _ in chain], [name for _, inputs in chain for name in inputs]
        outside = [name for name in read if name not in made]
        sizes = {name: 100 + 10**place for place, name in enumerate(sorted({*made, *read}))}
        every, ends = [*made, *read], [*set(outside), *results]
        mistakes = {
            "It counts every operation's reads and writes. That is the chain of separate kernels.": every,
            "It counts only what the kernel reads. The results are written.": set(outside),
            "It counts only what the kernel writes. It reads the tensors that come from outside.": results,
            "It reads a tensor again in each operation. The kernel keeps it in registers: count it once.": [
                *outside,
                *results,
            ],
            "It writes only the last output. Every name in `results` is written.": [*set(outside), made[-1]],
            "It counts a tensor that only the kernel itself uses. Such a tensor stays in registers.": {
                *made,
                *outside,
            },
            "It reads what the kernel itself has made. That is still in registers.": [*set(read), *results],
        }
        right = fused_bytes(chain, sizes, results)
        counted = {text: sum(sizes[name] for name in names) for text, names in mistakes.items()}
        counted["It counts trips, not bytes. Add up the `sizes`."] = len(ends)
        counted["It takes one size for all tensors. Look each name up in `sizes`."] = (
            len(ends) * sizes[chain[0][0]]
        )
        found = function([(output, list(inputs)) for output, inputs in chain], dict(sizes), list(results))
        expect.equal(found, right, f"fused_bytes of {chain}", mistakes=expect.seen(counted, right))


def graph_size(sizes: Sequence[int], num_requests: int) -> int | None:
    return next((size for size in sizes if size >= num_requests), None)


def check_graph_size(function: Callable[[Sequence[int], int], int | None]) -> None:
    sizes = [1, 2, 4, 8, 16, 24]
    for num_requests in (9, 4, 3, 1, 17, 24):
        right, name = graph_size(sizes, num_requests), f"graph_size({sizes}, {num_requests})"
        mistakes: dict[str, Any] = {
            "It takes the largest graph. The smallest that has room computes fewer rows of padding.": sizes[
                -1
            ],
            f"{num_requests} requests fit a graph of {num_requests} rows exactly, and yours takes the next one.": next(
                (size for size in sizes if size > num_requests), None
            ),
            "The graph has fewer rows than the step has requests.": max(
                size for size in sizes if size <= num_requests
            ),
            "It gives the number of requests, and no graph of that size is recorded.": num_requests,
            "It gives the place in `sizes`. Give the size that is there.": sizes.index(right or 0),
            "It gives the next power of two. Only the sizes in `sizes` are recorded.": 2
            ** (num_requests - 1).bit_length(),
            "It gives the rows of padding. Give the size.": (right or 0) - num_requests,
        }
        if (found := _size_or_none(function, sizes, num_requests)) is None:
            raise Wrong(f"{name} is None, but the graph of {right} rows has room.")
        expect.equal(found, right, name, mistakes=expect.seen(mistakes, right))
    found = _size_or_none(function, sizes, 25)
    expect.that(
        found is None,
        f"graph_size({sizes}, 25) is {found!r}. No graph has room for 25 requests, so return None.",
    )


def _size_or_none(function: Callable[..., Any], sizes: Sequence[int], num_requests: int) -> Any:
    try:
        return function(list(sizes), num_requests)
    except (StopIteration, IndexError, ValueError) as error:
        raise Wrong(
            f"graph_size({list(sizes)}, {num_requests}) raises {type(error).__name__}. "
            "When no graph has room, return None: the step then runs without one."
        ) from None


HOLES = [
    Hole("11.bytes", fused_bytes, check_fused_bytes),
    Hole("11.size", graph_size, check_graph_size),
]

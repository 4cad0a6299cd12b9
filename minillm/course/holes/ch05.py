"""The holes of chapter 05: one step of the online softmax, and the mask of a vector addition in Triton."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.exercise import Wrong
from minillm.course.hole import Hole
from minillm.course.tools.launch import launch, why_no_triton

tl: Any = None  # triton.language in the file that `launch` writes
STATE = ("m", "l", "acc")
NUM_ENTRIES, BLOCK = 11, 4  # of the vectors that the check adds, in 3 programs


State = tuple[Tensor, Tensor, Tensor]


def update(m: Tensor, l: Tensor, acc: Tensor, scores: Tensor, values: Tensor) -> State:
    new_m = torch.maximum(m, scores.amax(-1))
    p = torch.exp(scores - new_m[:, None])
    fade = torch.exp(m - new_m)
    new_l = l * fade + p.sum(-1)
    new_acc = acc * fade[:, None] + p @ values
    return new_m, new_l, new_acc


def check_update(function: Callable[..., Any]) -> None:
    first, second = (_piece(seed, top) for seed, top in ((1, 1.0), (2, 4.0)))
    start = torch.full((3,), -torch.inf), torch.zeros(3), torch.zeros(3, 5)
    state = update(*start, *first)
    _check_piece(function, state, *second, "On a piece that raises the maximum,")
    _check_piece(function, state, second[0] - 20, second[1], "On a piece that does not raise the maximum,")
    _check_piece(function, start, *first, "On the first piece,")


def _piece(seed: int, top: float) -> tuple[Tensor, Tensor]:
    """Return scores [3, 4] with this maximum in each row, and values [4, 5]."""
    scores = expect.randn(3, 4, seed=seed)
    return scores - scores.amax(-1, keepdim=True) + top, expect.randn(4, 5, seed=seed + 10)


def _check_piece(
    function: Callable[..., Any], state: State, scores: Tensor, values: Tensor, when: str
) -> None:
    m, l, acc = (x.clone() for x in state)
    kept = m, l, acc
    result = function(*state, scores, values)
    expect.something(result)
    if not isinstance(result, tuple | list) or len(result) != 3:
        raise Wrong("The result must be three tensors: new_m, new_l, new_acc.")
    right = update(*kept, scores, values)
    wrong = _mistakes(*kept, scores, values)
    for index, name in enumerate(STATE):
        given = {f"{when} {text}": value for text, value in wrong[name].items()}
        mistakes = expect.seen(given, right[index])
        axes = "rows D" if index == 2 else "rows"
        expect.close(result[index], right[index], axes, mistakes=mistakes, name=f"new_{name}")
    for before, after, name in zip(kept, state, STATE, strict=True):
        expect.that(
            torch.equal(before, after), f"It changes `{name}` in place. Compute a new tensor instead."
        )


def _mistakes(
    m: Tensor, l: Tensor, acc: Tensor, scores: Tensor, values: Tensor
) -> dict[str, dict[str, Tensor]]:
    """Return what known mistakes make of l and acc, by the sentence that names each."""
    new_m = torch.maximum(m, scores.amax(-1))
    p, fade = torch.exp(scores - new_m[:, None]), torch.exp(m - new_m)
    total, product = p.sum(-1), p @ values
    column, right_l = fade[:, None], l * fade + total
    old = "Multiply it by fade before you add."
    return {
        "m": {},
        "l": {
            f"l is still relative to the old maximum. {old}": l + total,
            "the new sum is multiplied by fade too. It is relative to the new maximum already.": (l + total)
            * fade,
            "fade multiplies the new sum, but it belongs to the old one.": l + total * fade,
            "the sum of earlier pieces is lost. Add the new sum to it.": total,
            "the sum of this piece is missing.": l * fade,
        },
        "acc": {
            f"acc is still relative to the old maximum. {old}": acc + product,
            "the new product is multiplied by fade too. It is relative to the new maximum already.": (
                acc + product
            )
            * column,
            "fade multiplies the new product, but it belongs to the old acc.": acc + product * column,
            "the acc of earlier pieces is lost. Add the new product to it.": product,
            "acc is divided by l already. Divide once, after the last piece.": (acc * column + product)
            / right_l[:, None],
        },
    }


def add(x, y, out, n, BLOCK: "tl.constexpr"):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    total = tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask)
    tl.store(out + at, total, mask=mask)


def check_add(kernel: Callable[..., Any]) -> None:
    """Run the kernel in Triton's interpreter, which sees each access outside of the vectors."""
    expect.that(not why_no_triton(), why_no_triton())
    x, y = torch.arange(NUM_ENTRIES, dtype=torch.float32), torch.full((NUM_ENTRIES,), 100.0)
    out = torch.full_like(x, torch.nan)
    try:
        launch(kernel, -(-NUM_ENTRIES // BLOCK), x, y, out, NUM_ENTRIES, BLOCK=BLOCK)
    except IndexError as error:
        raise Wrong(
            f"With n = {NUM_ENTRIES} and BLOCK = {BLOCK}: {error} The mask must be false for every entry from n on."
        ) from None
    for message in _faults(out, x + y):
        raise Wrong(message)


def _faults(out: Tensor, right: Tensor) -> Iterator[str]:
    """Yield what is wrong with the sum that the programs wrote, in the terms of the kernel."""
    missing = out.isnan().nonzero().flatten().tolist()
    entries = (
        f"{len(missing)} of {NUM_ENTRIES} entries of `out` were never written, the first is {missing[:1]}."
    )
    if missing == [NUM_ENTRIES - 1]:
        yield f"{entries} The last entry is n - 1, and the mask must be true there."
    elif missing:
        yield f"{entries} Program p computes the BLOCK entries from p · BLOCK on."
    elif not torch.equal(out, right):
        index = int((out != right).nonzero()[0])
        yield f"Entry {index} of `out` is {out[index]:g}. It should be {right[index]:g}."


HOLES = [Hole("05.update", update, check_update), Hole("05.mask", add, check_add)]

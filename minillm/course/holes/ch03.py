"""The holes of chapter 03: where the rows of a step go in the cache, and the positions of its tokens."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.hole import Hole

STEPS = ((0, 3), (3, 1), (4, 2))  # (rows in use, new rows): a prompt, a decode step, a chunk
UNUSED = 99.0


def append(stored: Tensor, new: Tensor, num_computed: int) -> Tensor:
    end = num_computed + len(new)
    stored[num_computed:end] = new
    return stored[:end]


def check_append(function: Callable[[Tensor, Tensor, int], Any]) -> None:
    stored, right = torch.full((8, 2, 4), UNUSED), expect.randn(6, 2, 4)
    for num_computed, n in STEPS:
        end = num_computed + n
        step = f"After a step that has {num_computed} rows in use and {n} new,"
        result = function(stored, right[num_computed:end].clone(), num_computed)
        _check_stored(stored, right[:end], num_computed, step)
        _check_returned(result, stored, right[:end], num_computed, step)


def _check_stored(stored: Tensor, right: Tensor, num_computed: int, step: str) -> None:
    """Compare the rows in use with the right ones, and name the first row that is wrong."""
    for row, (found, wanted) in enumerate(zip(stored, right, strict=False)):
        if torch.equal(found, wanted):
            continue
        expect.that(row >= num_computed, f"{step} row {row} is lost: it was in use, and was written over.")
        empty = bool((found == UNUSED).all())
        reason = "nothing was written into it" if empty else "it holds the numbers of another row"
        expect.that(
            False, f"{step} row {row} of `stored` is wrong: {reason}. New rows begin at {num_computed}."
        )


def _check_returned(result: Any, stored: Tensor, right: Tensor, num_computed: int, step: str) -> None:
    """Check that the result is the rows in use, no more and no fewer."""
    mistakes = {
        f"{step} it returns all of `stored`. The rows that are not in use hold no tokens.": stored,
        f"{step} it returns only the new rows. Attention needs the old ones too.": right[num_computed:],
        f"{step} it returns the rows without the new ones. A token sees itself too.": right[:num_computed],
    }
    seen = {text: value for text, value in mistakes.items() if value.shape != right.shape}
    for text, value in seen.items():
        expect.that(not (isinstance(result, Tensor) and result.shape == value.shape), text)
    expect.close(result, right, "rows H_kv D")


def positions(num_tokens: int, num_computed: int) -> list[int]:
    return list(range(num_computed, num_computed + num_tokens))


def check_positions(function: Callable[[int, int], Any]) -> None:
    for num_tokens, num_computed in ((10, 0), (1, 10), (3, 5)):
        name = f"positions(num_tokens={num_tokens}, num_computed={num_computed})"
        right = positions(num_tokens, num_computed)
        mistakes = {
            "It counts from the start of the step. RoPE needs the place in the whole text.": range(
                num_tokens
            ),
            "It is one too far: positions count from 0, so the first new token is at num_computed.": (
                p + 1 for p in right
            ),
            "It gives the positions of the old tokens too. The step computes only the new ones.": range(
                num_computed + num_tokens
            ),
            "It gives the position of the first new token only. A step can have several.": [num_computed],
            "It gives every token of the step the same position.": [num_computed] * num_tokens,
            "It ends at num_tokens. The last position is num_computed + num_tokens - 1.": range(
                num_computed, num_tokens
            ),
        }
        listed = {text: list(value) for text, value in mistakes.items()}
        expect.equal(
            _listed(function(num_tokens, num_computed)), right, name, mistakes=expect.seen(listed, right)
        )


def _listed(value: Any) -> Any:
    """Return a range or a tensor of positions as a list of ints, and anything else as it is."""
    if isinstance(value, Tensor):
        return value.tolist()
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


HOLES = [Hole("03.append", append, check_append), Hole("03.positions", positions, check_positions)]

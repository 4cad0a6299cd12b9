"""Evidence in one line: how much of a small implementation's result equals the real one's."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from minillm.course.say import say


def same(mine: Any, theirs: Any, what: str) -> None:
    """Print how many entries of two results are equal: `same(mine, theirs, "tokens equal to the engine's")`.

    The results are sequences, nested alike, or single values. The first difference is named with its position.
    """
    pairs = list(_pairs(mine, theirs, ()))
    different = [(place, a, b) for place, a, b in pairs if a != b]
    sign = "✗" if different or not pairs else "✓"
    say(f"{sign} {len(pairs) - len(different):,} of {len(pairs):,} {what}")
    if different:
        place, a, b = different[0]
        at = "".join(f"[{index}]" for index in place)
        say(f"  The first difference is at {at}: {a!r} here, {b!r} there.")


def close(mine: Tensor, theirs: Tensor, what: str, tolerance: float = 1e-3) -> None:
    """Print how many rows of two tensors differ by at most `tolerance` in every number, and the largest difference.

    A row is one index of the first axis. Raises ValueError if the shapes differ.
    """
    if mine.shape != theirs.shape:
        raise ValueError(f"The shapes differ: {list(mine.shape)} here, {list(theirs.shape)} there.")
    off = (mine - theirs).abs().flatten(1).amax(1)
    good = int((off <= tolerance).sum())  # NaN is no difference that is small enough
    sign = "✓" if 0 < good == len(off) else "✗"
    say(f"{sign} {good:,} of {len(off):,} {what}")
    if good < len(off):
        say(f"  The largest difference is {float(off.max()):.3g}.")


def _pairs(a: Any, b: Any, place: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any, Any]]:
    """Yield (place, entry of a, entry of b). A missing entry is None."""
    if not (_nested(a) and _nested(b)):
        yield place, a, b
        return
    for index in range(max(len(a), len(b))):
        x, y = (entries[index] if index < len(entries) else None for entries in (a, b))
        yield from _pairs(x, y, (*place, index))


def _nested(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)

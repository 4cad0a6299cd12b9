"""Evidence in one line: how much of a small implementation's result equals the real one's."""

from collections.abc import Iterator, Sequence
from typing import Any

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

"""`hint("01.1")`: three hints, one more with each call. They are a nudge, the invariant, and nearly the code."""

from minillm.course import progress
from minillm.course.exercise import find
from minillm.course.say import say

KINDS = ("A nudge", "The invariant", "Nearly the code")


def hint(exercise_id: str) -> None:
    """Print the hints so far and one more. Raises ValueError for an unknown exercise."""
    exercise = find(exercise_id)
    used, notice = progress.use_hint(exercise_id, len(KINDS))
    for kind, text in list(zip(KINDS, exercise.hints, strict=True))[:used]:
        say(f"{kind}: {text}")
    further = "call it again for the next one" if used < len(KINDS) else "this is the last hint"
    say(f"(hint {used} of {len(KINDS)}: {further})")
    if notice:
        say(notice)

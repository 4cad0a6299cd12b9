"""`hint("01.1")`: three hints on demand, each call one further: a nudge, the invariant, nearly the code."""

from minillm.course import progress
from minillm.course.exercise import find
from minillm.course.say import say

KINDS = ("A nudge", "The invariant", "Nearly the code")


def hint(exercise_id: str) -> None:
    """Print the hints so far and one more. Raises ValueError for an exercise that there is not."""
    exercise = find(exercise_id)
    used, notice = progress.use_hint(exercise_id, len(KINDS))
    for kind, text in list(zip(KINDS, exercise.hints, strict=True))[:used]:
        say(f"{kind}: {text}")
    further = "call again for the next" if used < len(KINDS) else "that was the last hint"
    say(f"({used} of {len(KINDS)}; {further})")
    if notice:
        say(notice)

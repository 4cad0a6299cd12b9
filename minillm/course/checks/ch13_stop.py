"""Chapter 13, serving: the checks of 13.2, stop strings in a stream."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import STOP_STRINGS

Push = tuple[str, str | None]


class Right:
    """The right stop strings: one character after another."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.stop, self.held = stop, ""

    def push(self, text: str) -> Push:
        shown = ""
        for character in text:
            self.held += character
            for stop in self.stop:
                if self.held.endswith(stop):
                    return shown + self.held.removesuffix(stop), stop
            while self.held and not any(stop.startswith(self.held) for stop in self.stop):
                shown, self.held = shown + self.held[0], self.held[1:]
        return shown, None

    def finish(self) -> str:
        return self.held


@dataclass(frozen=True)
class Run:
    """The results of all pushes, and that of `finish`, which is None after a stop string."""

    pushes: tuple[Push, ...]
    rest: str | None

    def __str__(self) -> str:
        ended = "" if self.rest is None else f", and finish() returns {self.rest!r}"
        return f"push returns {', '.join(map(str, self.pushes))}{ended}"


def pushed(stops: Any, pieces: Iterable[str]) -> Run:
    """Push all pieces, up to the first one with a stop string. Raise `Wrong` for results of another type."""
    found = list[Push]()
    for piece in pieces:
        result = stops.push(piece)
        require_push(result, piece)
        found.append(tuple(result))
        if found[-1][1] is not None:
            return Run(tuple(found), None)
    rest = stops.finish()
    expect.equal(rest, str(rest) if isinstance(rest, str) else "", "finish()")
    return Run(tuple(found), rest)


def require_push(result: Any, piece: str) -> None:
    expect.something(result, f"push({piece!r})")
    if not (isinstance(result, tuple | list) and len(result) == 2 and isinstance(result[0], str)):
        raise Wrong(
            f"push({piece!r}) is {result!r:.60}; a pair is wanted: the text to show, and the stop string or None"
        )
    if not (result[1] is None or isinstance(result[1], str)):
        raise Wrong(
            f"the second entry of push({piece!r}) is {result[1]!r:.40}; it should be the stop string that was found, "
            "or None"
        )


@dataclass(frozen=True)
class Text:
    """Stop strings, the pieces of a text, and what answers with a mistake would return."""

    stop: list[str]
    pieces: list[str]
    mistakes: dict[str, Run] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"stop strings {self.stop}, pieces {self.pieces}"

    def check(self, make: Answer) -> None:
        right = pushed(Right(self.stop), self.pieces)
        for text, mistaken in self.mistakes.items():
            if mistaken == right:
                raise ValueError(f"in {self} the mistake {text!r} cannot be seen")
        found = pushed(make(list(self.stop)), self.pieces)
        if found == right:
            return
        message = next((text for text, mistaken in self.mistakes.items() if mistaken == found), "")
        message = message or difference(found, right)
        raise Wrong(f"{message}. For example: {self}: {found}; it should be: {right}")


def difference(found: Run, right: Run) -> str:
    """Return in words how a run differs from the right one."""
    shown = wanted = ""
    for got, correct in zip(found.pushes, right.pushes, strict=False):
        shown, wanted = shown + got[0], wanted + correct[0]
        if got[1] is None and correct[1] is None:
            if len(shown) > len(wanted) and shown.startswith(wanted):
                return f"{shown[len(wanted) :]!r} is already shown, although it may be the beginning of a stop string"
            if len(shown) < len(wanted) and wanted.startswith(shown):
                return f"{wanted[len(shown) :]!r} is held back, although no stop string can begin with it"
        if got[1] != correct[1]:
            return (
                f"the stop string {correct[1]!r} is not found"
                if got[1] is None
                else f"{got[1]!r} is found, and not {correct[1]!r}"
            )
        if shown != wanted:
            return "the text that is shown is wrong"
    return "finish() does not return exactly the text that is held back"


def stopped(*shown: str, stop: str) -> Run:
    """Return a run that ends with `stop`; its last push shows the last text."""
    return Run((*((text, None) for text in shown[:-1]), (shown[-1], stop)), None)


def ended(*shown: str, rest: str = "") -> Run:
    return Run(tuple((text, None) for text in shown), rest)


ONE_PIECE = [
    Text(
        ["."],
        ["One. Two. Three"],
        {
            "the stop string itself is shown. The text ends before it": stopped("One.", stop="."),
            "a stop string is found only at the end of a piece. Text may follow it in the same piece": ended(
                "One. Two. Three"
            ),
            "the text after the stop string is shown too. The output ends there": stopped(
                "One Two. Three", stop="."
            ),
            "the last occurrence of the stop string counts here. The first occurrence ends the text": stopped(
                "One. Two", stop="."
            ),
            "a stop string is used as a regular expression, in which . is any character. Search it as a plain text": (
                stopped("", stop="O")
            ),
        },
    ),
    Text(
        ["end"],
        ["An End, an end "],
        {
            "upper and lower case count as the same. Compare the characters as they are": stopped(
                "An ", stop="end"
            ),
            "white space before the stop string is lost. Show it: the caller decides what to strip": stopped(
                "An End, an", stop="end"
            ),
        },
    ),
    Text(
        ["END"],
        ["a cat"],
        {
            "nothing is shown, although nothing is held back. With 0 characters to hold back, text[:-0] is the empty "
            "text": ended("", rest=""),
            "'at' is held back, although no stop string can begin with it. Hold back only what is the beginning of a "
            "stop string, not always len(stop) - 1 characters": ended("a c", rest="at"),
        },
    ),
    Text([], ["a cat", " sat"]),
]


@STOP_STRINGS.part("a stop string inside a piece", points=1)
def stop_in_piece(make: Answer) -> None:
    for text in ONE_PIECE:
        text.check(make)


SEVERAL = [
    Text(
        ["END", "."],
        ["a. b END"],
        {
            "'END' is found although '.' is complete first. Of several stop strings, the one that is complete first "
            "counts, not the first one of the list or the longest": stopped("a. b ", stop="END"),
        },
    ),
    Text(
        ["abcd", "bc"],
        ["xabcde"],
        {
            "the stop string that begins first counts here. 'bc' is complete before 'abcd': the text must not depend "
            "on the pieces in which it arrives": stopped("x", stop="abcd"),
        },
    ),
    Text(
        ["b", "ab"],
        ["xab"],
        {
            "two stop strings are complete at the same character. Then the first one in the list counts": stopped(
                "x", stop="ab"
            ),
        },
    ),
    Text(["ab", "b"], ["xab"]),
]


@STOP_STRINGS.part("several stop strings", points=1)
def stop_several(make: Answer) -> None:
    for text in SEVERAL:
        text.check(make)


PIECES = [
    Text(
        ["END"],
        ["a E", "ND"],
        {
            "the stop string is searched only in the new piece. It may begin in an earlier piece": ended(
                "a E", "ND"
            ),
        },
    ),
    Text(
        ["STOP", "END"],
        ["a E", "ND"],
        {
            "only the beginning of the first stop string is held back. Watch every stop string": ended(
                "a E", "ND"
            ),
        },
    ),
    Text(
        ["END"],
        ["an Elf", " ran"],
        {
            "everything after a character that may begin a stop string is held back. Hold back only its end: 'Elf' "
            "cannot become 'END' any more": ended("an ", "", rest="Elf ran"),
        },
    ),
    Text(["END"], ["a EN", "D"]),
    Text(
        ["END"],
        ["a E", "lf"],
        {
            "text that was held back is lost when it does not become a stop string. Show it with the next piece": (
                ended("a ", "lf")
            ),
        },
    ),
    Text(
        ["aab"],
        ["xaa", "b"],
        {
            "only 'a' is held back of 'aa'. Hold back the longest end that is the beginning of a stop string": ended(
                "xa", "ab"
            ),
        },
    ),
    Text(
        ["aab"],
        ["aa", "ab"],
        {
            "'aab' is not found in 'aaab'. After a match that fails, a stop string may begin again inside the "
            "characters that have already matched": ended("", "aaab"),
        },
    ),
    Text(["END"], ["", "a E", "", "N", "", "D"]),
]


@STOP_STRINGS.part("a stop string across pieces", points=2)
def stop_across(make: Answer) -> None:
    for text in PIECES:
        text.check(make)
    one, two = make(["END"]), make(["END"])
    one.push("a E")
    if (found := tuple(two.push("ND"))) != ("ND", None):
        raise Wrong(
            f"two objects share their text: after push('a E') on one, push('ND') on another is {found}. The held text "
            "belongs to one object, created in __init__; otherwise another request sees it"
        )


@STOP_STRINGS.part("the end without a stop string", points=1)
def stop_finish(make: Answer) -> None:
    Text(
        ["END"],
        ["a EN"],
        {
            "finish() loses the text that is held back. The output ended for another reason, so it is shown": ended(
                "a ", rest=""
            ),
            "finish() returns text once more that was shown before. Return only the text that is held back": ended(
                "a ", rest="a EN"
            ),
        },
    ).check(make)
    Text(["END"], ["a"]).check(make)


@STOP_STRINGS.part("any text in any pieces", points=2)
def stop_random(make: Answer) -> None:
    dice = random.Random(13)
    for _ in range(1500):
        letters = "ab" if dice.random() < 0.6 else "abc"
        stop = [
            "".join(dice.choices(letters, k=dice.randint(1, 5))) for _ in range(dice.choice([0, 1, 1, 2, 3]))
        ]
        pieces = [
            "".join(dice.choices(letters + "x", k=dice.randint(0, 5))) for _ in range(dice.randint(1, 6))
        ]
        Text(stop, pieces).check(make)

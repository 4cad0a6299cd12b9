"""The holes of chapter 13: read the events of a stream, and the text to hold back before a stop string."""

from collections.abc import Callable
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole


def read(buffer: bytes) -> tuple[list[str], bytes]:
    *events, rest = buffer.split(b"\n\n")
    return [event.removeprefix(b"data: ").decode() for event in events], rest


STREAM = b'data: {"text":" a d"}\n\ndata:  cat\n\ndata: \xc3\xa9t\xc3\xa9\n\ndata: [DONE]\n\n'
CUT = STREAM.index(b"\xa9t")  # between the two bytes of one character


def check_read(function: Callable[[bytes], Any]) -> None:
    one = _pair(function, b"data: a cat\n\n")
    expect.that(
        one[0] not in (["cat"], ["c"]),
        "It removes single letters (`strip` or `lstrip`), so \"a cat\" loses more than b'data: '. Use removeprefix.",
    )
    expect.equal(
        one[0],
        ["a cat"],
        "the events of b'data: a cat\\n\\n'",
        mistakes={
            "The field's name b'data: ' is part of the event. Only what follows it is the data.": [
                "data: a cat"
            ],
            "It finds no event, although the empty line has come.": [],
            "The end of the buffer counts as one more event. After the last empty line, nothing has come yet.": [
                "a cat",
                "",
            ],
        },
    )
    expect.equal(one[1], b"", "the rest after a complete event")
    half = _pair(function, b"data: a c")
    expect.that(
        half[0] != ["a c"], "It returns an event that has not ended: b'data: a c' has no empty line yet."
    )
    expect.equal(half[0], [], "the events of b'data: a c'")
    expect.equal(
        half[1],
        b"data: a c",
        "the rest of b'data: a c'",
        mistakes={
            "It drops the beginning of an event. These bytes must be kept for the next chunk.": b"",
            "It takes b'data: ' from the rest, so the event cannot be read when its end comes.": b"a c",
        },
    )
    line = _pair(function, b"data: a\n")
    expect.that(not line[0], "A line has ended, but no event: that needs an empty line, so two line breaks.")
    expect.equal(line[1], b"data: a\n", "the rest of b'data: a\\n'")
    try:
        cut = _pair(function, STREAM[:CUT])
    except UnicodeDecodeError:
        cut = None
    expect.that(
        cut is not None,
        "It decodes bytes of an event that has not ended. A chunk can end between the bytes of one character: keep "
        "the rest as bytes.",
    )
    wanted = ['{"text":" a d"}', " cat", "été", "[DONE]"]
    expect.equal(
        _pair(function, STREAM)[0],
        wanted,
        "the events of a stream",
        mistakes={
            "It removes all spaces before the data. Only the one after the colon belongs to the format; a token often "
            "begins with a space.": [event.strip() for event in wanted],
            "It returns only the first event. A chunk can have several.": wanted[:1],
            "It returns only the last event. A chunk can have several.": wanted[-1:],
        },
    )
    for size in (1, 3, 7):
        events, rest = list[str](), b""
        for start in range(0, len(STREAM), size):
            new, rest = _pair(function, rest + STREAM[start : start + size])
            events += new
        expect.equal(events, wanted, f"the events of a stream in chunks of {size}")


def _pair(function: Callable[[bytes], Any], buffer: bytes) -> tuple[Any, Any]:
    result = function(buffer)
    expect.something(result)
    expect.that(
        isinstance(result, tuple | list) and len(result) == 2,
        f"The result is {result!r:.60}. Return two things: the list of events, and the rest.",
    )
    events, rest = result
    expect.that(
        isinstance(events, list) and all(isinstance(event, str) for event in events),
        f"The first result is {events!r:.60}. It should be a list of strings: decode the bytes of each event.",
    )
    expect.that(isinstance(rest, bytes), f"The rest is a {type(rest).__name__}. Keep it as bytes.")
    return events, rest


def num_held(text: str, stop: str) -> int:
    return max(n for n in range(len(stop)) if text.endswith(stop[:n]))


CASES = (
    ("the cat", "END"),
    ("the E", "END"),
    ("the EN", "END"),
    ("the END", "ENDING"),
    ("the ENE", "END"),
    ("END of line", "ENDLESS"),
    ("abab", "ababc"),
    ("aabaa", "aabaaa"),
    ("aaa", "aaaa"),
    ("E", "END"),
    ("", "END"),
    ("x", "y"),
)


def check_num_held(function: Callable[[str, str], Any]) -> None:
    answers = [expect.number(function(text, stop)) for text, stop in CASES]
    right = [num_held(text, stop) for text, stop in CASES]
    mistakes: dict[str, Callable[[str, str], int]] = {
        "It holds back nothing. Then the beginning of a stop string is shown before its end has come.": (
            lambda text, stop: 0
        ),
        "It always holds back len(stop) - 1 characters, so every stream runs late. Hold back text only if it is the "
        "beginning of the stop string.": lambda text, stop: len(stop) - 1,
        'It returns the shortest match. "abab" ends with "abab", so with "ababc" all four must wait.': (
            lambda text, stop: min((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
        ),
        "It returns 1 for any beginning. Return how many characters match.": (
            lambda text, stop: int(any(text.endswith(stop[:n]) for n in range(1, len(stop))))
        ),
        "It looks for the beginning anywhere in the text. It must be at the end: other text has been decided.": (
            lambda text, stop: max(n for n in range(len(stop)) if stop[:n] in text)
        ),
        "It looks for the end of the stop string. The text can only end with its beginning.": (
            lambda text, stop: max(n for n in range(len(stop)) if text.endswith(stop[len(stop) - n :]))
        ),
        "It looks at the first character of the stop string only.": (
            lambda text, stop: int(len(stop) > 1 and text.endswith(stop[0]))
        ),
        "It returns the length of the text that may be shown. The number of characters to hold back is wanted.": (
            lambda text, stop: len(text) - num_held(text, stop)
        ),
    }
    for message, mistaken in mistakes.items():
        expect.that(answers != [mistaken(*case) for case in CASES], message)
    for (text, stop), got, wanted in zip(CASES, answers, right, strict=True):
        expect.that(
            got == wanted,
            f"text {text!r}, stop string {stop!r}: it returns {got}, and {wanted} is right: the longest end of the "
            f"text that is a beginning of the stop string is {stop[:wanted]!r}.",
        )


HOLES = [Hole("13.read", read, check_read), Hole("13.held", num_held, check_num_held)]

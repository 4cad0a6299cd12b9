"""Chapter 13, serving: the checks of 13.1 and 13.2."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import EVENT_STREAM, STOP_STRINGS

# --- 13.1 EventStream ---

KEEP = "Keep what is not complete yet for the next call"
BREAK, NEL = "\u2028", "\x85"  # line separator and next line, which str.splitlines takes for line ends


class Events:
    """The right reader. It returns each event as soon as it is certainly complete."""

    def __init__(self) -> None:
        self.rest, self.data = b"", list[bytes]()

    def feed(self, chunk: bytes) -> list[str]:
        self.rest += chunk
        end = len(self.rest) - self.rest.endswith(b"\r")
        *lines, rest = re.split(rb"\r\n|\r|\n", self.rest[:end])
        self.rest, events = rest + self.rest[end:], []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self.data.append(value.removeprefix(b" "))
            elif not line and self.data:
                events.append(b"\n".join(self.data).decode())
                self.data = []
        return events


def fed(stream: Any, chunk: bytes) -> list[str]:
    """Feed a chunk to the learner's stream. Raise `Wrong` unless the result is a list of texts."""
    try:
        found = stream.feed(chunk)
    except UnicodeDecodeError:
        raise Wrong(HALF_CHARACTER.format(chunk=chunk)) from None
    except ValueError as error:
        if type(error).__name__ == "JSONDecodeError":
            raise Wrong(PARSED) from None
        raise
    expect.something(found, f"feed({chunk!r:.60})")
    if not isinstance(found, list):
        raise Wrong(f"feed({chunk!r:.60}) is a {type(found).__name__}; a list of texts is wanted")
    for data in found:
        if not isinstance(data, str):
            raise Wrong(
                PARSED
                if isinstance(data, dict)
                else f"feed({chunk!r:.60}) has a {type(data).__name__} in its list; the data is a str: decode it"
            )
    return [str(data) for data in found]


PARSED = (
    "the data is parsed as JSON. Return it as it is: [DONE] is not JSON, and the stream may carry other texts"
)
HALF_CHARACTER = (
    "{chunk!r:.60} cannot be decoded: a chunk may end in the middle of a character. Keep bytes, and decode whole "
    "lines"
)


def read(make: Answer, chunks: Iterable[bytes]) -> list[str]:
    """Return all data that a new stream finds in these chunks."""
    stream = make()
    return [data for chunk in chunks for data in fed(stream, chunk)]


@dataclass(frozen=True)
class Stream:
    """A stream in one chunk, the data of its events, and what readers with a mistake would find."""

    text: str
    right: list[str]
    mistakes: dict[str, list[str]] = field(default_factory=dict)
    otherwise: str = ""

    def check(self, make: Answer) -> None:
        found = read(make, [self.text.encode()])
        if found == self.right:
            return
        message = next((text for text, mistaken in self.mistakes.items() if mistaken == found), "")
        case = f"the data of {self.text!r} is {found}; it should be {self.right}"
        raise Wrong(
            f"{message or self.otherwise}. For example: {case}" if message or self.otherwise else case
        )


TEXTS = {
    "Once": "the data is not sent as it is",
    '{"text": "Once"}': "the data is not sent as it is",
    "Zoë 🦊": "characters are lost. Encode the event in UTF-8",
    f"a{BREAK}b{NEL}c": "U+2028 and U+0085 do not end a line of the stream, although str.splitlines takes them for "
    'line ends. Split only at "\\n"',
    "two\nlines": "each line of the data needs its own `data: `",
    "empty\n\nline": "each line of the data needs its own `data: `, an empty line too",
    "a line end at the end\n": "each line of the data needs its own `data: `, the empty one after a final line end too",
    "": "an event with empty data has one line `data: `, then an empty line",
    " a space before": "the space before the data is lost. Write one space of your own after the colon",
}


@EVENT_STREAM.part("an event on the wire", points=2)
def write_events(make: Answer) -> None:
    for data, message in TEXTS.items():
        sent = make().event(data)
        expect.something(sent, f"event({data!r})")
        expect.that(
            isinstance(sent, bytes),
            f"event({data!r}) is a {type(sent).__name__}; bytes are wanted, because a connection carries bytes: encode "
            "the text",
        )
        if sent.decode(errors="replace") == f"data: {data}\n":
            raise Wrong(f"event({data!r}) is {sent!r}. An event ends with an empty line: one more \\n")
        found = Events().feed(sent + b":\n")
        if len(found) > 1:
            raise Wrong(
                f"event({data!r}) is {sent!r}, and a reader finds {len(found)} events in it. All lines of the data are "
                "one event, with one empty line at its end"
            )
        if found != [data]:
            why = f"finds the data {found[0]!r}" if found else "finds no complete event in it"
            raise Wrong(f"{message}. For example: event({data!r}) is {sent!r:.80}, and a reader {why}")
    for data in TEXTS:
        if make().event(data).count(b"\r"):
            raise Wrong(f"event({data!r}) has a CR. Its lines end with LF")


WORDS = ["Once", "upon", "[DONE]"]


@EVENT_STREAM.part("events that arrive whole", points=1)
def read_whole(make: Answer) -> None:
    stream = make()
    first = fed(stream, b"data: Once\n\n")
    if not first:
        late = fed(stream, b"data: upon\n\n")
        expect.that(
            late != ["Once"],
            "an event is returned a chunk later than it could be. Return it with the chunk that completes it: the next "
            "chunk may come much later, or never",
        )
    elif first == ["Once"]:
        second = fed(stream, b"data: upon\n\n")
        expect.that(
            second != ["Once", "upon"],
            "the second call returns the first event once more. Return only the events that this chunk completes",
        )
    Stream(
        "".join(f"data: {word}\n\n" for word in WORDS),
        WORDS,
        {
            "only one event per call is returned. A chunk may complete several": WORDS[:1],
            "only the last event of a chunk is returned. A chunk may complete several": WORDS[-1:],
            "[DONE] is left out. Return its data too: the caller must know that the stream is complete": WORDS[
                :-1
            ],
            "the data of an event appears again in the next one. Forget it when the event is returned": [
                "\n".join(WORDS[: i + 1]) for i in range(3)
            ],
            "the space after the colon is returned too. One space belongs to the format": [
                f" {word}" for word in WORDS
            ],
            "there is a line end after the last data line. The line ends are only between the lines": [
                f"{word}\n" for word in WORDS
            ],
        },
    ).check(make)


LINES = [
    Stream(
        "data: two\ndata: lines\n\ndata: one\n\n",
        ["two\nlines", "one"],
        {
            "each data line is returned as an event of its own. An event ends with an empty line": [
                "two",
                "lines",
                "one",
            ],
            "only the last data line of an event is returned. Join all of them": ["lines", "one"],
            "only the first data line of an event is returned. Join all of them": ["two", "one"],
            'data lines are joined without a line end. Join them with "\\n"': ["twolines", "one"],
            'data lines are joined with a space. Join them with "\\n"': ["two lines", "one"],
        },
    ),
    Stream(
        ": ping\n\ndata: a\n\n",
        ["a"],
        {
            "an event without data is returned as an empty text. Servers send comments, so that the connection stays "
            "open, and these are no data": ["", "a"],
            "a comment is returned as data. A line that begins with a colon is a comment": [" ping", "a"],
            "a comment is returned as data. A line that begins with a colon is a comment, without its space": [
                "ping",
                "a",
            ],
        },
        "the comment changes what is found. A line that begins with a colon is a comment: skip it",
    ),
    Stream(
        "event: message\nid: 7\nretry: 10\ndatabase: no\ndata: a\n\n",
        ["a"],
        otherwise="other fields are returned as data. Use only lines with the field `data`, and skip event, id, retry "
        "and all others",
    ),
    Stream(
        "data:abc\n\n",
        ["abc"],
        otherwise="a data line without a space after its colon is not read right. The space is optional",
    ),
    Stream(
        "data:  a b  \n\n",
        [" a b  "],
        otherwise="spaces of the data are lost. Remove at most one space, the first one after the colon: tokens often "
        "begin with a space",
    ),
    Stream(
        'data: {"a": "b: c"}\n\n',
        ['{"a": "b: c"}'],
        otherwise="data that contains a colon is lost. Divide a line at its first colon only",
    ),
    Stream(
        "data:\n\ndata: a\n\n",
        ["", "a"],
        otherwise="an event with empty data is not returned. It has a data line, so its data is the empty text",
    ),
    Stream("data: Zoë\n\n", ["Zoë"], otherwise="the data is decoded as Latin-1. A stream is always UTF-8"),
    Stream(
        f"data: a{BREAK}data: b{NEL}c\x0bd\n\n",
        [f"a{BREAK}data: b{NEL}c\x0bd"],
        otherwise="U+2028 and U+0085 end a line here, because str.splitlines takes them for line ends. In a stream, "
        "only LF, CR and CRLF do",
    ),
]


@EVENT_STREAM.part("data lines, comments and other fields", points=1)
def read_lines(make: Answer) -> None:
    for stream in LINES:
        stream.check(make)


def divided(make: Answer, whole: bytes, cuts: Sequence[int], message: str) -> None:
    """Compare each call with the right reader, for a stream with LF only that is divided at `cuts`."""
    stream, right = make(), Events()
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        chunk = whole[start:end]
        found, wanted = fed(stream, chunk), right.feed(chunk)
        if found != wanted:
            before = f" after {whole[:start]!r:.50}" if start else ""
            if found and not wanted and whole[end - 1 : end] == b"\n":
                message = "the event is returned before its empty line. More data lines may follow"
            elif found and not wanted:
                message = f"a chunk is not an event: it may end in the middle of one. {KEEP}"
            raise Wrong(
                f"{message}. For example: feed({chunk!r:.60}){before} is {found}; it should be {wanted}"
            )


STORY = "data: Once\ndata: upon\n\n: ping\n\ndata: a time\n\ndata: [DONE]\n\n"
FOX = "data: Zoë 🦊\n\ndata: né\ndata: 東京\n\n"


@EVENT_STREAM.part("any division into chunks", points=2)
def read_divided(make: Answer) -> None:
    one, two = make(), make()
    fed(one, b"data: the first\n")
    if "the first" in "".join(fed(two, b"data: the second\n\n")):
        raise Wrong(
            "two streams are mixed: the second one returns data of the first. Create what is not complete yet in "
            "__init__, otherwise another stream sees it"
        )
    whole = STORY.encode()
    not_a_line = f"a chunk is not a line: it may end in the middle of one. {KEEP}"
    for cut in range(len(b"data: O"), whole.index(b"\n")):
        divided(make, whole, [cut], not_a_line)
    for end in [i + 1 for i, byte in enumerate(whole) if byte == 10][:-1]:
        divided(make, whole, [end], f"a chunk is not an event: it may end after any of its lines. {KEEP}")
    for cut in range(1, len(whole)):
        divided(make, whole, [cut], not_a_line)
    whole = FOX.encode()
    for cut in range(1, len(whole)):
        divided(
            make,
            whole,
            [cut],
            "characters are lost: a chunk may end in the middle of a character. Keep bytes, and decode whole lines",
        )
    divided(make, whole, range(1, len(whole)), f"bytes that arrive one by one are not read right. {KEEP}")
    divided(make, whole, [0, 4, 4, 9], "an empty chunk changes what is found")


def with_ends(whole: str, ends: Sequence[str], seed: int = 0) -> bytes:
    """Return the stream with line ends from `ends`, and a comment at its end. An empty line never splits into two."""
    dice, out = random.Random(seed), ""
    for line in whole.split("\n")[:-1]:
        end = dice.choice(ends)
        # CR and the LF of an empty line would be one line end.
        out += line + ("\r\n" if not line and out.endswith("\r") and end == "\n" else end)
    return f"{out}: end\n".encode()


@EVENT_STREAM.part("LF, CRLF and CR", points=1)
def read_line_ends(make: Answer) -> None:
    cases = {
        ("\r\n",): "lines that end with CRLF are not read right",
        ("\r",): "lines that end with CR alone are not read right",
    }
    for ends, message in cases.items():
        whole = with_ends(STORY, ends)
        found, wanted = read(make, [whole]), Events().feed(whole)
        expect.that(found == wanted, f"{message}. The data of {whole!r} is {found}; it should be {wanted}")
    whole = with_ends(STORY, ["\r\n"])
    for cut in range(1, len(whole)):
        found = read(make, [whole[:cut], whole[cut:]])
        if found != wanted:
            place = (
                " between CR and LF. That LF ends no other line"
                if whole[cut - 1 : cut + 1] == b"\r\n"
                else ""
            )
            raise Wrong(
                f"a chunk may end{place or ' anywhere'}. For example: {whole[:cut]!r:.60} and {whole[cut:]!r:.60} give "
                f"{found}; it should be {wanted}"
            )
    dice = random.Random(13)
    for seed in range(60):
        whole = with_ends(STORY + FOX, ["\r\n", "\r", "\n"], seed)
        cuts = sorted(dice.sample(range(len(whole)), dice.randint(1, 12)))
        chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        found, wanted = read(make, chunks), Events().feed(whole)
        expect.that(
            found == wanted,
            f"with LF, CR and CRLF in one stream, the chunks {chunks!r:.300} give {found}; it should be {wanted}",
        )


# --- 13.2 StopStrings ---

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

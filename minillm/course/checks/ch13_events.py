"""Chapter 13, serving: the checks of 13.1, Server-Sent Events."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import EVENT_STREAM

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

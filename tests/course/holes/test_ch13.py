"""The holes of chapter 13: other right answers pass, and each wrong answer is told what is wrong with it."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch13 import check_num_held, check_read, num_held, read


def by_partition(buffer):
    events = []
    while b"\n\n" in buffer:
        event, _, buffer = buffer.partition(b"\n\n")
        events.append(str(event[6:], "utf-8"))
    return events, buffer


def by_pattern(buffer):
    end = buffer.rfind(b"\n\n") + 2 if b"\n\n" in buffer else 0
    return [found.decode() for found in re.findall(rb"data: (.*?)\n\n", buffer, re.S)], buffer[end:]


@pytest.mark.parametrize("answer", [read, by_partition, by_pattern])
def test_right_readers_pass(answer: Callable[..., Any]) -> None:
    check_read(answer)


def split(buffer, clean=lambda event: event.removeprefix(b"data: ").decode(), rest=lambda rest: rest):
    *events, last = buffer.split(b"\n\n")
    return [clean(event) for event in events], rest(last)


def per_line(buffer):
    *lines, rest = buffer.split(b"\n")
    return [line.removeprefix(b"data: ").decode() for line in lines if line], rest


def all_of_it(buffer):
    return [event.removeprefix(b"data: ").decode() for event in buffer.split(b"\n\n")], b""


def decoded_first(buffer):
    *events, rest = buffer.decode().split("\n\n")
    return [event.removeprefix("data: ") for event in events], rest.encode()


def only_one(place):
    def answer(buffer):
        events, rest = read(buffer)
        return events[place:][:1], rest

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda buffer: split(buffer, lambda event: event.decode()), "part of the event"),
        (lambda buffer: split(buffer, lambda event: event.strip(b"data: ").decode()), "removeprefix"),
        (lambda buffer: split(buffer, lambda event: event.lstrip(b"data: ").decode()), "removeprefix"),
        (lambda buffer: split(buffer, lambda event: event[5:].decode().strip()), "removes all spaces"),
        (lambda buffer: split(buffer, lambda event: event.removeprefix(b"data: ")), "decode the bytes"),
        (lambda buffer: split(buffer, rest=lambda rest: b""), "drops the beginning"),
        (lambda buffer: split(buffer, rest=lambda rest: rest.removeprefix(b"data: ")), "from the rest"),
        (lambda buffer: split(buffer, rest=lambda rest: rest.decode()), "as bytes"),
        (per_line, "two line breaks"),
        (all_of_it, "one more event"),
        (decoded_first, "between the bytes"),
        (only_one(0), "only the first"),
        (only_one(-1), "only the last"),
        (lambda buffer: read(buffer)[0], "two things"),
        (lambda buffer: ([], buffer), "no event"),
        (lambda buffer: None, "return"),
    ],
)
def test_wrong_readers_are_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_read(answer)


def by_loop(text, stop):
    for n in range(min(len(stop) - 1, len(text)), 0, -1):
        if text[-n:] == stop[:n]:
            return n
    return 0


def by_start(text, stop):
    starts = [i for i in range(len(text)) if stop.startswith(text[i:]) and text[i:] != stop]
    return len(text) - starts[0] if starts else 0


@pytest.mark.parametrize("answer", [num_held, by_loop, by_start])
def test_right_hold_back_passes(answer: Callable[..., Any]) -> None:
    check_num_held(answer)


def ends(text, stop):
    return [n for n in range(1, len(stop)) if text.endswith(stop[:n])]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda text, stop: 0, "holds back nothing"),
        (lambda text, stop: len(stop) - 1, "runs late"),
        (lambda text, stop: min(ends(text, stop), default=0), "shortest"),
        (lambda text, stop: int(bool(ends(text, stop))), "how many characters"),
        (lambda text, stop: max(n for n in range(len(stop)) if stop[:n] in text), "at the end"),
        (
            lambda text, stop: max(n for n in range(len(stop)) if text.endswith(stop[-n:] if n else "")),
            "beginning",
        ),
        (lambda text, stop: int(len(stop) > 1 and text[-1:] == stop[0]), "first character"),
        (lambda text, stop: len(text) - num_held(text, stop), "may be shown"),
        (lambda text, stop: len(ends(text, stop)), "is right"),
        (lambda text, stop: len(stop) if text.endswith(stop[:1]) else 0, "is right"),
        (lambda text, stop: None, "return"),
    ],
)
def test_wrong_hold_back_is_named(answer: Callable[..., Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        check_num_held(answer)

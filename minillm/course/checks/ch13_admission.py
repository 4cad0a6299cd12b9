"""Chapter 13, serving: the checks of 13.3, admission under a queue limit."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import ADMISSION


@dataclass(frozen=True)
class Load:
    """The arguments of `retry_after`."""

    waiting: int
    limit: int
    rate: float

    def __str__(self) -> str:
        return f"retry_after({self.waiting}, {self.limit}, {self.rate:g})"


Seconds = float | None


def seconds(
    load: Load,
    too_many: Callable[[Load], float] = lambda load: load.waiting - load.limit + 1,
    whole: Callable[[float], float] = math.ceil,
    least: float = 1,
    most: float = 60,
    unknown: float = 1,
) -> Seconds:
    """Return the right seconds. The keywords replace one step each, for mistakes."""
    if load.waiting < load.limit:
        return None
    if load.rate == 0:
        return unknown
    return min(most, max(least, whole(too_many(load) / load.rate)))


ADMITTED: dict[str, Callable[[Load], bool]] = {
    "one more than the limit is admitted. With max_num_waiting requests waiting, no place is free": lambda load: (
        load.waiting <= load.limit
    ),
    "the last place stays empty. With max_num_waiting - 1 requests waiting, one place is free": lambda load: (
        load.waiting + 1 < load.limit
    ),
    "with a rate of 0, every request is admitted. The queue is full all the same": lambda load: (
        load.waiting < load.limit or load.rate == 0
    ),
}

WAITS: dict[str, Callable[[Load], Seconds]] = {
    "the seconds are rounded down. A client that comes too early is refused again: round up": partial(
        seconds, whole=int
    ),
    "the seconds are rounded to the nearest number. A client that comes too early is refused again: round up": partial(
        seconds, whole=round
    ),
    "the seconds can be 0, and the client would come back at once. Return at least 1": partial(
        seconds, whole=int, least=0
    ),
    "the seconds are a second too many if the quotient is whole. Round up with math.ceil": partial(
        seconds, whole=lambda s: int(s) + 1
    ),
    "this is the time of one place too few. One more request fits when num_waiting - max_num_waiting + 1 others have "
    "left": partial(seconds, too_many=lambda load: load.waiting - load.limit),
    "this is the time until the whole queue is done. One more request fits as soon as there are fewer than "
    "max_num_waiting": partial(seconds, too_many=lambda load: load.waiting),
    "this is the time until the whole queue is done, and one more. One more request fits as soon as there are fewer "
    "than max_num_waiting": partial(seconds, too_many=lambda load: load.waiting + 1),
    "this is the time until one request has finished. The requests above the limit must leave the queue too": partial(
        seconds, too_many=lambda load: 1
    ),
    "the number of requests is multiplied by the rate. To get the time, divide it by the rate": partial(
        seconds, too_many=lambda load: (load.waiting - load.limit + 1) * load.rate**2
    ),
    "the quotient is upside down. It should be requests divided by requests per second": partial(
        seconds, too_many=lambda load: load.rate**2 / (load.waiting - load.limit + 1)
    ),
    "the seconds have no upper limit. Return at most 60, because the load may change": partial(
        seconds, most=math.inf
    ),
    "with a rate of 0, this is the largest time. The rate has not been measured yet: return 1": partial(
        seconds, unknown=60
    ),
    "the rate is not used. The more requests finish per second, the sooner there is a place": partial(
        seconds, most=1
    ),
}

LOADS = [
    Load(waiting, limit, rate)
    for limit in (1, 4, 16)
    for waiting in (limit // 2, limit - 1, limit, limit + 1, limit + 7)
    for rate in (0.0, 0.05, 0.3, 0.5, 0.8, 2.0, 2.5, 7.0)
]


def waits(make: Answer) -> list[Seconds]:
    """Return the answer's result for each load. Raise `Wrong` for results of another type."""
    queue, found = make(4), list[Seconds]()
    for load in LOADS:
        try:
            result = queue.retry_after(load.waiting, load.limit, load.rate)
        except ZeroDivisionError:
            raise Wrong(
                f"{load} raises ZeroDivisionError. A rate of 0 means that no request has finished yet, as after the "
                "start of the server"
            ) from None
        if result is not None:
            if isinstance(result, bool | str | float):
                raise Wrong(
                    f"{load} is {result!r}, a {type(result).__name__}. Return None for an admitted request, otherwise "
                    "whole seconds as an int"
                )
            result = expect.number(result, str(load))
            expect.that(
                result != 0 or load.waiting >= load.limit,
                f"{load} is 0; it should be None, because the request is admitted. 0 seconds is not the same",
            )
        found.append(result)
    return found


@ADMISSION.part("admitted or refused", points=1)
def admitted_or_refused(make: Answer) -> None:
    found = [result is None for result in waits(make)]
    right = [seconds(load) is None for load in LOADS]
    if found == right:
        return
    message = expect.explanation(ADMITTED, LOADS, found)
    load, got = next(
        (load, got) for load, got, wanted in zip(LOADS, found, right, strict=True) if got != wanted
    )
    case = f"{load} {'admits' if got else 'refuses'} the request"
    raise Wrong(f"{message}. For example: {case}" if message else f"{case}, and {load.limit} may wait")


@ADMISSION.part("the seconds of Retry-After", points=2)
def seconds_to_wait(make: Answer) -> None:
    found, right = waits(make), [seconds(load) for load in LOADS]
    if found == right:
        return
    message = expect.explanation(WAITS, LOADS, found)
    load, got, wanted = next(case for case in zip(LOADS, found, right, strict=True) if case[1] != case[2])
    case = f"{load} is {got}; it should be {wanted}"
    raise Wrong(f"{message}. For example: {case}" if message else case)


class Queue:
    """The learner's queue with the right one next to it. Every method raises `Wrong` if their results differ."""

    def __init__(self, make: Answer, limit: int) -> None:
        self.theirs, self.limit = make(limit), limit
        self.waiting, self.gone = list[str](), dict[str, str]()  # why a request does not wait any more
        self.story = list[str]()

    def arrive(self, request: str, rate: float = 0.5, otherwise: str = "") -> None:
        """Let a request arrive. `otherwise` says why a refusal, or an admission, is wrong here."""
        right = seconds(Load(len(self.waiting), self.limit, rate))
        found = self.theirs.arrive(request, rate)
        self._note(f"arrive({request!r})", found)
        if (found is None) != (right is None):
            done = (
                "admitted, although all places are taken"
                if found is None
                else "refused, although a place is free"
            )
            raise Wrong(f"{otherwise or f'a request is {done}'}. {self}: {request!r} is {done}")
        expect.that(
            found == right,
            f"arrive returns {found!r}; it should be {right!r}, what retry_after says for {len(self.waiting)} waiting "
            f"requests. {self}",
        )
        if right is None:
            self.waiting.append(request)
        else:
            self.gone[request] = "refused"

    def start(self, otherwise: str = "") -> None:
        right = self.waiting.pop(0) if self.waiting else None
        found = self.theirs.start()
        self._note("start()", found)
        if found == right:
            if right is not None:
                self.gone[right] = "running"
            return
        if otherwise:
            why = otherwise
        elif found is None:
            why = f"{right!r} was admitted, and it never joins the queue"
        elif found in self.waiting and "refused" in self.gone.values():
            why = f"{right!r} is thrown away to make room for another one. A request that was admitted keeps its place"
        elif found in self.waiting:
            why = f"the request that has waited longest starts first, {right!r}, and not {found!r}"
        else:
            why = {
                "running": f"{found!r} starts twice. A request that starts leaves the queue",
                "refused": f"a refused request starts: {found!r}. It must not join the queue",
                "left": f"the client of {found!r} has left, and its request still starts",
            }.get(self.gone.get(found, ""), f"{found!r} is not a request that waits")
        raise Wrong(f"{why}. {self}: start() is {found!r}; it should be {right!r}")

    def leave(self, request: str) -> None:
        self._note(f"leave({request!r})", self.theirs.leave(request), shown=False)
        if request in self.waiting:
            self.waiting.remove(request)
            self.gone[request] = "left"

    def _note(self, call: str, result: Any, shown: bool = True) -> None:
        self.story.append(f"{call} → {result!r:.30}" if shown else call)

    def __str__(self) -> str:
        return f"With {self.limit} places: " + ", ".join(self.story[-12:])


@ADMISSION.part("a bounded queue", points=2)
def bounded_queue(make: Answer) -> None:
    queue = Queue(make, 2)
    queue.start()
    queue.arrive("m")
    queue.start()
    queue.start()
    queue = Queue(make, 2)
    queue.arrive("m")
    queue.arrive("c", otherwise="the request is counted before it joins, so its own place is missing")
    queue.start()
    queue.start()
    queue = Queue(make, 2)
    queue.arrive("m")
    queue.arrive("c")
    queue.arrive("x")
    for _ in range(3):
        queue.start()
    one, two = Queue(make, 2), Queue(make, 1)
    one.arrive("a")
    two.arrive(
        "b",
        otherwise="two queues share their requests: create the list in __init__, otherwise the queue of another model "
        "sees them",
    )
    queue = Queue(make, 2)
    queue.arrive("m")
    queue.arrive("c")
    queue.start()
    queue.arrive("b", otherwise="running requests use places here. Only waiting ones do")


@ADMISSION.part("clients that leave", points=1)
def clients_leave(make: Answer) -> None:
    queue = Queue(make, 2)
    queue.arrive("a")
    queue.arrive("b")
    queue.leave("b")
    queue.arrive("c", otherwise="a client has left, and its request still uses a place")
    queue.start()
    queue.leave("a")  # it is running
    queue.start(otherwise="a running request left, and another request lost its place")
    queue = Queue(make, 1)
    queue.arrive("a")
    queue.start()
    queue.arrive("b")
    queue.leave("a")
    queue.arrive("c", otherwise="more than the limit wait, because a running request left: it used no place")
    dice = random.Random(13)
    for _ in range(60):
        queue, count = Queue(make, dice.randint(1, 4)), 0
        for _ in range(40):
            match dice.choice(["arrive", "arrive", "start", "leave"]):
                case "arrive":
                    count += 1
                    queue.arrive(f"r{count}", dice.choice([0.0, 0.3, 2.0]))
                case "start":
                    queue.start()
                case "leave" if count:
                    queue.leave(f"r{dice.randint(1, count)}")

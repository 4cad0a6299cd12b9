"""Chapter 13, serving: its exercises' checks. Those of 13.1, 13.2 and 13.5 are in two other files."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.checks import ch13_abort, ch13_stream  # noqa: F401 – they add their parts to the exercises
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import ABORT, ADMISSION, EVENT_STREAM, ROUTE, STOP_STRINGS
from minillm.serving.routing import Candidate

__all__ = ["ABORT", "ADMISSION", "EVENT_STREAM", "ROUTE", "STOP_STRINGS"]


# --- 13.3 AdmissionQueue ---


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


# --- 13.4 route ---


@dataclass(frozen=True)
class Choice:
    """The arguments of `route`: the candidates as pairs (unfinished, cached)."""

    pairs: tuple[tuple[int, int], ...]
    prompt: int

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(unfinished, cached) for unfinished, cached in self.pairs]

    @property
    def best(self) -> list[int]:
        """Return the indices of all right answers."""
        keys = [(unfinished + self.prompt - cached, unfinished) for unfinished, cached in self.pairs]
        return [i for i, key in enumerate(keys) if key == min(keys)]

    def by(self, key: Callable[[int, int], Any]) -> int:
        """Return the first index with the smallest `key(unfinished, cached)`."""
        return min(range(len(self.pairs)), key=lambda i: key(*self.pairs[i]))

    def __str__(self) -> str:
        shown = "; ".join(f"{unfinished} unfinished, {cached} cached" for unfinished, cached in self.pairs)
        return f"a prompt of {self.prompt} tokens, candidates [{shown}]"


def work(unfinished: int, cached: int) -> int:
    return unfinished - cached


def with_prefix(choice: Choice) -> list[int]:
    """Return the indices of the candidates with a part of the prompt, or all if there are none."""
    every = range(len(choice.pairs))
    return [i for i in every if choice.pairs[i][1]] or list(every)


def half_threshold(choice: Choice) -> int:
    most = choice.by(lambda unfinished, cached: -cached)
    if choice.pairs[most][1] >= choice.prompt / 2:
        return most
    return choice.by(lambda unfinished, cached: unfinished)


def zero_is_nothing(choice: Choice) -> int:
    best, least = 0, 0
    for i, pair in enumerate(choice.pairs):
        if not best or work(*pair) < least:
            best, least = i, work(*pair)
    return best


def of_equal_loads(choice: Choice) -> int:
    return choice.by(lambda unfinished, cached: (unfinished, -cached))


ROUTES: dict[str, Callable[[Choice], int]] = {
    "the result is always 0. If it is a position in a sorted list, return the index in `candidates`": lambda c: (
        0
    ),
    "the replica depends only on the length of the prompt": lambda c: c.prompt % len(c.pairs),
    "the load is not counted: the longest cached prefix wins. A popular prefix then fills one replica, while the "
    "others are idle": lambda c: c.by(lambda unfinished, cached: -cached),
    "the load is not counted, except between equal prefixes. A popular prefix then fills one replica, while the others "
    "are idle": lambda c: c.by(lambda unfinished, cached: (-cached, unfinished)),
    "the cache is not counted: the replica with the fewest unfinished tokens wins, and computes again what another one "
    "has in its cache": lambda c: c.by(lambda unfinished, cached: unfinished),
    "the cache is not counted, except between equal loads. As a share of the prompt it would be at most 1: count its "
    "tokens": of_equal_loads,
    "any cached token counts like the whole prompt. It matters how long the cached prefix is": lambda c: c.by(
        lambda unfinished, cached: (cached == 0, unfinished)
    ),
    "there is a threshold: half of the prompt in the cache wins, otherwise the load alone decides. Add both numbers of "
    "tokens": half_threshold,
    "cached tokens are added to the work. The replica does not compute them: subtract them": lambda c: c.by(
        lambda unfinished, cached: unfinished + cached
    ),
    "the replica with the largest sum gets the request. Take the smallest": lambda c: c.by(
        lambda unfinished, cached: -work(unfinished, cached)
    ),
    "the smallest value of the product of both numbers wins. The replica does one after the other, so add them": (
        lambda c: c.by(lambda unfinished, cached: unfinished * (c.prompt - cached))
    ),
    "a cached token counts only half as much as an unfinished one. Each is one token to compute": lambda c: (
        c.by(lambda unfinished, cached: unfinished - 0.5 * cached)
    ),
    "a cached token counts twice as much as an unfinished one. Each is one token to compute": lambda c: c.by(
        lambda unfinished, cached: unfinished - 2 * cached
    ),
    "an idle replica always wins. It may have to compute more of the prompt than a busy one has left": lambda c: (
        c.by(lambda unfinished, cached: (unfinished > 0, work(unfinished, cached)))
    ),
    "the result is the position in a shorter list, of the replicas that have a part of the prompt. Return the index in "
    "`candidates`": lambda c: min(
        range(len(with_prefix(c))), key=lambda i: work(*c.pairs[with_prefix(c)[i]])
    ),
    "a replica without the prefix is never taken if another one has a part of it. It may still be done sooner": (
        lambda c: min(with_prefix(c), key=lambda i: work(*c.pairs[i]))
    ),
    "index 0 counts as no index. `not best` is True for 0: compare with None": zero_is_nothing,
}


def random_choices(count: int, seed: int) -> list[Choice]:
    """Return choices with only one best replica. In some, no replica has a part of the prompt."""
    dice, found = random.Random(seed), list[Choice]()
    while len(found) < count:
        prompt, cold = dice.randint(40, 800), dice.random() < 0.2
        pairs = tuple(
            (
                dice.choice([0, dice.randint(1, 1000)]),
                0 if cold else dice.choice([0, dice.randint(1, prompt - 1)]),
            )
            for _ in range(dice.randint(2, 5))
        )
        if len(pairs) == len({work(*pair) for pair in pairs}):
            found.append(Choice(pairs, prompt))
    return found


def routed(route: Answer, choice: Choice) -> int:
    """Return the answer's index. Raise `Wrong` for a result that is none."""
    found = route(choice.candidates, choice.prompt)
    expect.something(found)
    expect.that(
        not isinstance(found, Candidate),
        "the result is a Candidate. Return its index in `candidates`: take the min of range(len(candidates))",
    )
    index = expect.number(found)
    costs = [choice.prompt + work(*pair) for pair in choice.pairs]
    if not (index == int(index) and 0 <= index < len(costs)):
        what = ", which is the sum itself. Return the index of its replica" if index in costs else ""
        raise Wrong(f"the result for {choice} is {index}{what or '; it should be an index'}")
    return int(index)


@ROUTE.part("the fewest tokens until the prompt is done", points=3)
def fewest_tokens(route: Answer) -> None:
    choices = random_choices(300, seed=13)
    found = [routed(route, choice) for choice in choices]
    wrong = [(choice, got) for choice, got in zip(choices, found, strict=True) if got not in choice.best]
    if not wrong:
        return
    message = expect.explanation(ROUTES, choices, found)
    choice, got = min(wrong, key=lambda case: len(case[0].pairs))
    if message is None and len({routed(route, choice) for _ in range(30)}) > 1:
        message = "the replica is chosen at random: the same arguments give different results"
    sums = ", ".join(str(choice.prompt + work(*pair)) for pair in choice.pairs)
    case = f"for {choice} the result is {got}; it should be {choice.best[0]}, because the sums are {sums}"
    raise Wrong(f"{message}. For example: {case}" if message else case)


@ROUTE.part("equal sums", points=1)
def equal_sums(route: Answer) -> None:
    dice = random.Random(31)
    for _ in range(60):
        prompt = dice.randint(100, 400)
        total = prompt + dice.randint(0, 50)
        caches = dice.sample(range(prompt), 3)
        pairs = [(total - prompt + cached, cached) for cached in caches]
        choice = Choice(tuple(pairs), prompt)
        got = routed(route, choice)
        expect.that(
            got in choice.best,
            f"of equal sums, take the replica with fewer unfinished tokens: it starts sooner. For {choice} the result "
            f"is {got}; it should be {choice.best[0]}",
        )


@dataclass(frozen=True)
class Outcome:
    """How a policy serves the trace: tokens until a prompt is done, tokens computed, the busiest replica's share."""

    mean_wait: float
    computed: int
    busiest: float

    def __str__(self) -> str:
        return (
            f"{self.mean_wait:,.0f} tokens until a prompt is done, {self.computed:,} computed, the busiest replica "
            f"serves {self.busiest:.0%}"
        )


def trace(count: int = 400, seed: int = 13) -> list[tuple[int, int, int]]:
    """Return requests as (time, number of their shared prefix, length of the rest). One prefix is popular."""
    dice, now, found = random.Random(seed), 0.0, list[tuple[int, int, int]]()
    for _ in range(count):
        now += dice.expovariate(1 / 160)
        found.append((round(now), dice.choices(range(8), [8, 3, 2, 1, 1, 1, 1, 1])[0], dice.randint(20, 120)))
    return found


def serve(route: Callable[[Sequence[Candidate], int], int], replicas: int = 3, slots: int = 3) -> Outcome:
    """Serve the trace on replicas that compute one token per unit of time, each with a cache of `slots` prefixes."""
    free_at, caches, counts = [0] * replicas, [list[int]() for _ in range(replicas)], [0] * replicas
    waits, computed = list[int](), 0
    for now, prefix, rest in trace():
        length = 400
        candidates = [
            Candidate(max(0, end - now), length if prefix in cache else 0)
            for end, cache in zip(free_at, caches, strict=True)
        ]
        i = route(candidates, length + rest)
        missing = length + rest - candidates[i].num_cached_tokens
        free_at[i] = max(now, free_at[i]) + missing
        waits.append(free_at[i] - now)
        computed, counts[i] = computed + missing, counts[i] + 1
        caches[i] = [*[one for one in caches[i] if one != prefix][1 - slots :], prefix]
    return Outcome(sum(waits) / len(waits), computed, max(counts) / len(waits))


def fewest_unfinished(candidates: Sequence[Candidate], num_prompt_tokens: int) -> int:
    return min(range(len(candidates)), key=lambda i: candidates[i].num_unfinished_tokens)


def longest_prefix(candidates: Sequence[Candidate], num_prompt_tokens: int) -> int:
    return max(range(len(candidates)), key=lambda i: candidates[i].num_cached_tokens)


@ROUTE.part("a trace of shared prompts", points=2)
def shared_prompts(route: Answer) -> None:
    def choose(candidates: Sequence[Candidate], num_prompt_tokens: int) -> int:
        choice = Choice(
            tuple((one.num_unfinished_tokens, one.num_cached_tokens) for one in candidates), num_prompt_tokens
        )
        return routed(route, choice)

    mine, by_load, by_prefix = serve(choose), serve(fewest_unfinished), serve(longest_prefix)
    expect.that(
        mine.mean_wait < 0.9 * min(by_load.mean_wait, by_prefix.mean_wait),
        "on a trace of 400 requests that share 8 prefixes, your routing is not better than both simple policies. "
        f"Yours: {mine}. Least loaded: {by_load}. Longest prefix: {by_prefix}",
    )

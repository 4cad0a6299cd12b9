"""Chapter 13, serving: the checks of 13.4, routing."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch13 import ROUTE
from minillm.serving.routing import Candidate


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

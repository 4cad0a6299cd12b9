"""Chapter 10, speculative decoding: its exercises' checks. Those of 10.1, 10.2 and 10.5 are in two other files."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.checks import ch10_commit, ch10_verify  # noqa: F401 – they add their parts to the exercises
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch10 import ACCEPT_OR_CORRECT, BEST_K, COMMIT, NGRAM, RESIDUAL

__all__ = ["ACCEPT_OR_CORRECT", "BEST_K", "COMMIT", "NGRAM", "RESIDUAL"]


# --- 10.3 ngram ---


@dataclass(frozen=True)
class Text:
    """The arguments of `ngram`."""

    ids: list[int]
    limit: int
    longest: int = 4
    shortest: int = 2

    def starts(self, n: int) -> list[int]:
        """Return the starts of all earlier places with the last n tokens."""
        return [s for s in range(len(self.ids) - n) if self.ids[s : s + n] == self.ids[-n:]]

    def lengths(self) -> list[int]:
        """Return the lengths of matches, the longest first."""
        return [n for n in range(self.longest, self.shortest - 1, -1) if self.starts(n)]

    def __str__(self) -> str:
        return f"ngram({self.ids}, {self.limit}, longest={self.longest}, shortest={self.shortest})"


Choose = Callable[[Text, int, list[int]], int]


def latest(text: Text, n: int, starts: list[int]) -> int:
    return starts[-1]


def proposal(
    text: Text,
    lengths: Callable[[Text], list[int]] = Text.lengths,
    choose: Choose = latest,
    shift: int = 0,
    find: Callable[[Text, int], list[int]] = Text.starts,
) -> list[int]:
    """Return the right proposal. The keywords replace one step each, for mistakes."""
    for n in lengths(text):
        if starts := find(text, n):
            first = choose(text, n, starts) + n + shift
            return text.ids[first : first + text.limit]
    return []


def everything(text: Text) -> list[int]:
    return proposal(Text(text.ids, len(text.ids), text.longest, text.shortest))


def lengths_between(first: Callable[[Text], int], last: Callable[[Text], int]) -> Callable[[Text], list[int]]:
    return lambda text: [n for n in range(first(text), last(text) - 1, -1) if text.starts(n)]


def enough(text: Text, n: int, starts: list[int]) -> int:
    """Return the last place with `limit` tokens after it, or else the first one, as minillm.speculative.ngram does."""
    good = [s for s in starts if s + n + text.limit <= len(text.ids)]
    return good[-1] if good else starts[0]


def most_frequent(text: Text, n: int, starts: list[int]) -> int:
    follow = [tuple(text.ids[s + n : s + n + text.limit]) for s in starts]
    return max(reversed(starts), key=lambda s: follow.count(tuple(text.ids[s + n : s + n + text.limit])))


def filled(text: Text, fill: Callable[[list[int]], int]) -> list[int]:
    found = proposal(text)
    while found and len(found) < text.limit:
        found.append(fill(found))
    return found


def in_text(text: Text, n: int) -> list[int]:
    """Return where the last n tokens begin, found as digits in a text."""
    place = " ".join(map(str, text.ids[:-1])).rfind(" ".join(map(str, text.ids[-n:])))
    return [len(" ".join(map(str, text.ids[:-1]))[:place].split())] if place >= 0 else []


def in_any_order(text: Text, n: int) -> list[int]:
    tail = sorted(text.ids[-n:])
    return [s for s in range(len(text.ids) - n) if sorted(text.ids[s : s + n]) == tail]


PROPOSALS: dict[str, Callable[[Text], list[int]]] = {
    "nothing is proposed. The last tokens match themselves at the end of the text if the search includes their own "
    "place: begin at an earlier one": lambda t: [],
    "the proposal begins with the last token of the match. Begin with the token after it": partial(
        proposal, shift=-1
    ),
    "the proposal is the match itself. Propose the tokens after it": lambda t: next(
        (t.ids[t.starts(n)[-1] :][: t.limit] for n in t.lengths()), []
    ),
    "the first token after the match is left out": partial(proposal, shift=1),
    "the tokens come from the first place. Of several places, take the last one": partial(
        proposal, choose=lambda t, n, starts: starts[0]
    ),
    "more than `limit` tokens are proposed: everything up to the end of the text": everything,
    "more than `limit` tokens are proposed: one too many": lambda t: everything(t)[: t.limit + 1],
    "only one token is proposed. Propose up to `limit` tokens": lambda t: proposal(t)[:1],
    "the shortest match is used. Try the longest first: it says more about what follows": partial(
        proposal, lengths=lambda t: t.lengths()[::-1]
    ),
    "matches of fewer than `longest` tokens are not found. Try shorter ones, down to `shortest`": partial(
        proposal, lengths=lengths_between(lambda t: t.longest, lambda t: t.longest)
    ),
    "matches of `shortest` tokens are not found. The range ends one too early": partial(
        proposal, lengths=lengths_between(lambda t: t.longest, lambda t: t.shortest + 1)
    ),
    "matches of `longest` tokens are not found. The range begins one too late": partial(
        proposal, lengths=lengths_between(lambda t: t.longest - 1, lambda t: t.shortest)
    ),
    "a match of a single token is used. A match needs at least `shortest` tokens": partial(
        proposal, lengths=lengths_between(lambda t: t.longest, lambda t: 1)
    ),
    "a match longer than `longest` is preferred to a more recent one. Compare at most `longest` tokens": partial(
        proposal, lengths=lengths_between(lambda t: len(t.ids), lambda t: t.shortest)
    ),
    "a match that overlaps with the last tokens is not found. 7 7 7 begins with its last two tokens": (
        partial(proposal, find=lambda t, n: [s for s in t.starts(n) if s + 2 * n <= len(t.ids)])
    ),
    "the proposal is what followed most often. Take what followed at the last place": partial(
        proposal, choose=most_frequent
    ),
    "the last token is repeated until there are `limit` tokens. Propose only tokens of the text": partial(
        filled, fill=lambda found: found[-1]
    ),
    "the end of the text continues the proposal in a circle. Propose only the tokens up to the end": lambda t: (
        (everything(t) * t.limit)[: t.limit]
    ),
    "the place has `limit` tokens after it, as the package prefers. Here, take the most recent place, even if fewer "
    "tokens follow": partial(proposal, choose=enough),
    "tokens are proposed without a match: the last one is repeated. Return an empty list": lambda t: (
        proposal(t) or t.ids[-1:] * t.limit
    ),
    "the ids are compared as digits of a text, in which 12 ends with 2. Compare lists of ids": partial(
        proposal,
        lengths=lambda t: list(range(min(t.longest, len(t.ids) - 1), t.shortest - 1, -1)),
        find=in_text,
    ),
    "the tokens of the match may be in any order. Compare the lists as they are": partial(
        proposal,
        lengths=lambda t: list(range(min(t.longest, len(t.ids) - 1), t.shortest - 1, -1)),
        find=in_any_order,
    ),
}


def check_ngram(ngram: Answer, texts: Sequence[Text]) -> None:
    results = [proposed(ngram, text) for text in texts]
    right = [proposal(text) for text in texts]
    if results == right:
        return
    message = expect.explanation(PROPOSALS, texts, results)
    wrong = [case for case in zip(texts, results, right, strict=True) if case[1] != case[2]]
    text, found, wanted = min(wrong, key=lambda case: len(case[0].ids))
    case = f"{text} is {found}; it should be {wanted}"
    raise Wrong(f"{message}. For example: {case}" if message else case)


def proposed(ngram: Answer, text: Text) -> list[int]:
    try:
        found = ngram(list(text.ids), text.limit, text.longest, text.shortest)
    except IndexError as problem:
        if len(text.ids) > text.longest:
            raise
        raise Wrong(
            f"{text} raises IndexError ({problem}): a short text has fewer tokens than the match that you try"
        ) from None
    expect.something(found)
    expect.that(
        isinstance(found, list), f"the result is a {type(found).__name__}; a list of token ids is wanted"
    )
    return [int(expect.number(token)) for token in found]


def texts(count: int, lengths: range, alphabet: Sequence[int], seed: int) -> list[Text]:
    """Return random texts in which some runs of tokens occur again."""
    dice, found = random.Random(seed), []
    for _ in range(count):
        ids = [dice.choice(alphabet) for _ in range(dice.choice(lengths))]
        for _ in range(dice.randint(0, 2)):
            start = dice.randrange(len(ids))
            ids += ids[start : start + dice.randint(1, 7)]
        longest = dice.choice([3, 4, 4, 5])
        found.append(Text(ids, dice.randint(1, 5), longest, dice.choice([2, 2, 3])))
    return found


FEW, MANY = range(4), [1, 2, 11, 12, 21, 22, 111, 112, 121, 122]
MATCHING = [t for t in texts(400, range(6, 20), MANY, seed=1) if t.lengths()]


@NGRAM.part("the tokens after a match", points=2)
def ngram_match(ngram: Answer) -> None:
    one = [t for t in MATCHING if all(len(t.starts(n)) == 1 for n in t.lengths())]
    check_ngram(ngram, one)


@NGRAM.part("the longest match, then the most recent", points=2)
def ngram_choice(ngram: Answer) -> None:
    check_ngram(ngram, [*texts(200, range(8, 24), FEW, seed=2), *MATCHING])


@NGRAM.part("short texts, and texts without a match", points=2)
def ngram_short(ngram: Answer) -> None:
    check_ngram(
        ngram, [*texts(120, range(1, 6), FEW, seed=3), Text([5], 3), *texts(80, range(8, 20), MANY, seed=4)]
    )


# --- 10.4 best_k ---


@dataclass(frozen=True)
class Machine:
    """The arguments of `best_k`."""

    alpha: float
    draft_cost: float
    verify_costs: list[float]

    def tokens(self, k: int) -> float:
        return sum(self.alpha**i for i in range(k + 1))

    def cost(self, k: int) -> float:
        return k * self.draft_cost + self.verify_costs[k]

    def __str__(self) -> str:
        return f"best_k({self.alpha}, {self.draft_cost}, {self.verify_costs})"


Best = tuple[int, float]
Count = Callable[[Machine, int], float]


def best(
    machine: Machine,
    tokens: Count = Machine.tokens,
    cost: Count = Machine.cost,
    ks: Callable[[int], Iterable[int]] = range,
) -> Best:
    """Return the best k and its speed-up. The keywords replace one step each, for mistakes."""
    speedups = {k: tokens(machine, k) / cost(machine, k) for k in ks(len(machine.verify_costs))}
    k = max(speedups, key=speedups.__getitem__)
    return k, speedups[k]


def until_slower(machine: Machine) -> Best:
    found = -1, 0.0
    for k in range(len(machine.verify_costs)):
        speedup = machine.tokens(k) / machine.cost(k)
        if speedup <= found[1]:
            break
        found = k, speedup
    return found


def at(machine: Machine, k: int) -> Best:
    return k, machine.tokens(k) / machine.cost(k)


def cost_per_token(machine: Machine) -> Best:
    k, speedup = best(machine)
    return k, 1 / speedup


SPEEDUPS: dict[str, Callable[[Machine], Best]] = {
    "the bonus token is not counted. If all k drafts are accepted, the step yields k + 1 tokens, so the last power is "
    "alpha^k": partial(best, tokens=lambda m, k: sum(m.alpha**i for i in range(k)) if k else 1.0),
    "only accepted drafts are counted. Each step also yields the corrected or the bonus token": partial(
        best, tokens=lambda m, k: m.tokens(k) - 1
    ),
    "the tokens per step are alpha * k + 1, as if each draft were accepted independently. A rejected draft also ends "
    "the step for all later drafts: add alpha^i": partial(best, tokens=lambda m, k: m.alpha * k + 1),
    "the tokens per step are 1 + k * alpha^k, as if a step accepted all k drafts or none": partial(
        best, tokens=lambda m, k: 1 + k * m.alpha**k
    ),
    "alpha ** (k + 1) is added. The sum ends with alpha ** k: a step has at most k + 1 tokens": partial(
        best, tokens=lambda m, k: m.tokens(k + 1)
    ),
    "the drafts cost nothing here. Each of the k drafts costs draft_cost": partial(
        best, cost=lambda m, k: m.verify_costs[k]
    ),
    "one draft is paid. The k drafts are drawn one after another, so they cost k * draft_cost": partial(
        best, cost=lambda m, k: (k > 0) * m.draft_cost + m.verify_costs[k]
    ),
    "k + 1 drafts are paid. The last token of a step comes from the model, not from the draft": partial(
        best, cost=lambda m, k: m.cost(k) + m.draft_cost
    ),
    "the verification counts as if it cost the same as one token. It costs verify_costs[k]": partial(
        best, cost=lambda m, k: k * m.draft_cost + 1
    ),
    "the verification of k tokens is paid. A step with k drafts computes k + 1 tokens: verify_costs[k]": partial(
        best, cost=lambda m, k: k * m.draft_cost + m.verify_costs[max(k - 1, 0)]
    ),
    "the drafts are verified one by one. One step verifies all of them, and costs verify_costs[k]": partial(
        best, cost=lambda m, k: k * m.draft_cost + (k + 1) * m.verify_costs[0]
    ),
    "a step too many is paid. The verification is the step: it costs verify_costs[k], its own token included": partial(
        best, cost=lambda m, k: m.cost(k) + 1
    ),
    "k = 0 is not considered. If no k pays, do not speculate: the answer is (0, 1.0)": partial(
        best, ks=lambda count: range(1, count)
    ),
    "the largest k is not considered. verify_costs has entries for k = 0 to len(verify_costs) - 1": partial(
        best, ks=lambda count: range(count - 1)
    ),
    "this is the k with the most tokens per step. Compare the speed-ups: tokens divided by cost": lambda m: (
        at(m, len(m.verify_costs) - 1 if m.alpha else 0)
    ),
    "the speed-up is upside down: it is the number of tokens divided by the cost": cost_per_token,
    "this is the number of tokens per step. To get the speed-up, divide it by the cost of the step": lambda m: (
        best(m)[0],
        m.tokens(best(m)[0]),
    ),
    "the search ends at the first k that is not faster. A later k can be faster: costs may grow unevenly": (
        until_slower
    ),
    "of several k with the same speed-up, this is not the smallest": partial(
        best, ks=lambda count: range(count - 1, -1, -1)
    ),
    "with alpha = 1, all drafts are accepted, so a step yields k + 1 tokens": partial(
        best, tokens=lambda m, k: m.tokens(k) if m.alpha < 1 else 1.0
    ),
}


def near(a: Best, b: Best) -> bool:
    return a[0] == b[0] and abs(a[1] - b[1]) <= 1e-4 * (1 + abs(b[1]))


def check_best(best_k: Answer, machines: Sequence[Machine]) -> None:
    results = [found_best(best_k, machine) for machine in machines]
    right = [best(machine) for machine in machines]
    if all(map(near, results, right)):
        return
    message = expect.explanation(SPEEDUPS, machines, results, near)
    for machine, found, wanted in zip(machines, results, right, strict=True):
        if not near(found, wanted):
            case = f"{machine} is ({found[0]}, {found[1]:.4g}); it should be ({wanted[0]}, {wanted[1]:.4g})"
            raise Wrong(f"{message}. For example: {case}" if message else case)


def found_best(best_k: Answer, machine: Machine) -> Best:
    try:
        found = best_k(machine.alpha, machine.draft_cost, list(machine.verify_costs))
    except ZeroDivisionError:
        raise Wrong(
            f"{machine} divides by zero. With alpha = {machine.alpha:g}, the closed form (1 - alpha^(k+1)) / (1 - "
            "alpha) is 0 / 0: use the sum of alpha^i, or treat alpha = 1 apart"
        ) from None
    expect.something(found)
    if not (isinstance(found, tuple | list) and len(found) == 2):
        raise Wrong(f"the result is {found!r:.80}; it should be a pair, the best k and its speed-up")
    k, speedup = (entry.item() if isinstance(entry, Tensor) else entry for entry in found)
    return int(expect.number(k, "k")), float(expect.number(speedup, "the speed-up"))


FREE = [Machine(alpha, 0.0, [1.0] * n) for alpha, n in ((0.5, 3), (0.8, 5), (0.9, 9), (0.3, 2), (0.65, 4))]
# Costs as on a CPU (two rows are more expensive than four), of a large batch, and of a memory-bound GPU.
CPU, BATCH, GPU = (
    [1.0, 1.46, 1.33, 1.33, 1.32, 1.44],
    [1.0, 1.9, 2.8, 3.7],
    [1.0, 1.02, 1.03, 1.05, 1.08, 1.1, 1.4],
)


@BEST_K.part("tokens per step, if drafts and verification cost nothing", points=2)
def best_free(best_k: Answer) -> None:
    check_best(best_k, FREE)


@BEST_K.part("the cost of drafts and verification", points=2)
def best_costs(best_k: Answer) -> None:
    machines = [Machine(a, c, costs) for a in (0.6, 0.8, 0.93) for c in (0.02, 0.17) for costs in (CPU, GPU)]
    check_best(
        best_k, [*machines, Machine(0.9, 0.05, [1.0, 1.1, 1.2]), Machine(0.97, 0.01, [1.0, 1.3, 1.5, 1.6])]
    )


@BEST_K.part("no speculation, alpha = 0 and alpha = 1", points=2)
def best_edges(best_k: Answer) -> None:
    machines = [
        Machine(a, c, costs) for a in (0.0, 0.2, 1.0) for c in (0.0, 0.17) for costs in (CPU, BATCH, GPU)
    ]
    check_best(best_k, [*machines, Machine(0.0, 0.0, [1.0] * 4), Machine(0.7, 0.3, BATCH)])

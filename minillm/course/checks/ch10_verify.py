"""Chapter 10, speculative decoding: the checks of 10.1 and 10.2. Random numbers are given, so results are exact."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch10 import ACCEPT_OR_CORRECT, RESIDUAL
from minillm.course.verifier import draw
from minillm.sampling import Stream

# --- 10.1 accept_or_correct ---


@dataclass(frozen=True)
class Step:
    """The distributions p [k + 1, V] and q [k, V] of a step, its k drafts, and its random numbers by stream and row."""

    p: Tensor
    q: Tensor
    drafts: list[int]
    u: dict[Stream, list[float]]

    @property
    def k(self) -> int:
        return len(self.drafts)

    def ratio(self, i: int) -> float:
        return float(self.p[i, self.drafts[i]]) / float(self.q[i, self.drafts[i]])

    def rest(self, i: int) -> Tensor:
        return (self.p[i].double() - self.q[i]).clamp(min=0)

    def accepts(self, i: int) -> bool:
        return self.u[Stream.ACCEPT][i] < self.ratio(i)

    @property
    def num_accepted(self) -> int:
        return leading(self, Step.accepts)

    def random(self, stream: Stream, i: int) -> float:
        if stream not in self.u or not 0 <= i <= self.k:
            raise Wrong(
                f"random({getattr(stream, 'name', stream)}, {i}) is called in a step with the drafts {self.drafts}. "
                f"Give it a Stream, and a row from 0 to {self.k}"
            )
        return self.u[stream][i]

    def about(self, i: int, tokens: Sequence[int]) -> str:
        """Return draft i and the tokens that the answer returned, in words."""
        x, verdict = self.drafts[i], "accepted" if self.accepts(i) else "rejected"
        return (
            f"the drafts are {self.drafts}. Draft {i} has p(x) = {self.p[i, x]:.3f}, q(x) = {self.q[i, x]:.3f} and "
            f"the random number {self.u[Stream.ACCEPT][i]:.3f}, so it is {verdict}. Your tokens: {list(tokens)}"
        )


def leading(step: Step, rule: Callable[[Step, int], bool]) -> int:
    """Return how many drafts a rule accepts before it rejects one."""
    return sum(1 for _ in takewhile(partial(rule, step), range(step.k)))


def some_step(k: int, seed: int, vocab_size: int = 6) -> Step:
    """Return a step whose drafts were drawn from q with the numbers of Stream.DRAFT."""
    dice = random.Random(seed)
    logits = 1.2 * expect.randn(k + 1, vocab_size, seed=seed)
    q = (logits[:k] + 0.9 * expect.randn(k, vocab_size, seed=seed + 5000)).softmax(-1)
    u = {stream: [dice.random() for _ in range(k + 1)] for stream in Stream}
    drafts = [draw(q[i], u[Stream.DRAFT][i]) for i in range(k)]
    return Step(logits.softmax(-1), q, drafts, u)


STEPS = [some_step(1 + seed // 20, seed) for seed in range(80)]
WITHOUT_DRAFTS = [some_step(0, seed) for seed in range(80, 88)]


def tokens_of(answer: Answer, step: Step) -> list[int]:
    tokens = answer(step.p, step.q, list(step.drafts), step.random)
    expect.something(tokens)
    expect.that(
        isinstance(tokens, list),
        f"the result is a {type(tokens).__name__}; a list of token ids is wanted",
    )
    return [int(expect.number(token.item() if isinstance(token, Tensor) else token)) for token in tokens]


RULES: dict[str, Callable[[Step], int]] = {
    "every draft is kept. Keep draft x only with the probability min(1, p(x) / q(x))": lambda s: s.k,
    "the ratio is q / p. Accept with the probability p(x) / q(x)": partial(
        leading, rule=lambda s, i: s.u[Stream.ACCEPT][i] * s.ratio(i) < 1
    ),
    "the number of Stream.DRAFT judges the draft. The draft was drawn with this number, so the two are not "
    "independent: use Stream.ACCEPT": partial(leading, rule=lambda s, i: s.u[Stream.DRAFT][i] < s.ratio(i)),
    "the number of row 0 judges all drafts. Each row has its own number": partial(
        leading, rule=lambda s, i: s.u[Stream.ACCEPT][0] < s.ratio(i)
    ),
    "draft i is judged with p[i + 1]. p[i] is the distribution in the place of draft i, and p[i + 1] is the one after "
    "it": partial(
        leading,
        rule=lambda s, i: s.u[Stream.ACCEPT][i] * float(s.q[i, s.drafts[i]]) < float(s.p[i + 1, s.drafts[i]]),
    ),
    "a draft is accepted only if it is the argmax of p. At a temperature above 0, other tokens must be accepted too": (
        partial(leading, rule=lambda s, i: int(s.p[i].argmax()) == s.drafts[i])
    ),
    "drafts are judged without a random number: accepted if p(x) >= q(x), rejected otherwise. A draft with p(x) < q(x) "
    "must be accepted with the probability p(x) / q(x)": partial(leading, rule=lambda s, i: s.ratio(i) >= 1),
    "a draft is accepted with the probability p(x) instead of p(x) / q(x). That is right only for a draft that counts "
    "as certain, with q(x) = 1": partial(
        leading, rule=lambda s, i: s.u[Stream.ACCEPT][i] < float(s.p[i, s.drafts[i]])
    ),
    "a token is drawn from p, which keeps a draft only if both are equal. That is right only for a draft that counts "
    "as certain. With q, more drafts can be accepted": partial(
        leading, rule=lambda s, i: draw(s.p[i], s.u[Stream.ACCEPT][i]) == s.drafts[i]
    ),
    "a draft is accepted where it must be rejected, and rejected where it must be accepted. Accept it if the random "
    "number is below the ratio": partial(leading, rule=lambda s, i: not s.accepts(i)),
}
Shape = Callable[[Step, list[int], int], bool]  # of a step, its tokens and the number of accepted drafts
SHAPES: dict[str, Shape] = {
    "only accepted drafts are returned after a rejection. The step must end with one more token, drawn from the "
    "residual": lambda s, t, n: t == s.drafts[:n],
    "the rejected draft itself is among the tokens. A token from the residual replaces it": (
        lambda s, t, n: t[: n + 1] == s.drafts[: n + 1] and len(t) <= n + 2
    ),
    "there is a bonus token after the corrected one. A bonus token follows only if all drafts are accepted": (
        lambda s, t, n: t[:n] == s.drafts[:n] and len(t) == n + 2
    ),
    "the step skips rejected drafts, and keeps later ones. These were drafted after a token that is not in the text": (
        lambda s, t, n: t[:-1] == [x for i, x in enumerate(s.drafts) if s.accepts(i)]
    ),
    "the step goes on with the drafts after a rejected one. They were drafted after a token that is not in the text, "
    "so return at the first rejection": lambda s, t, n: len(t) == s.k + 1,
}


def accepted(answer: Answer) -> list[list[int]]:
    """Return the tokens of all steps. Raise `Wrong` unless the right drafts are kept; the last token may be wrong."""
    results = [tokens_of(answer, step) for step in STEPS]
    expect.that(
        [tokens_of(answer, with_other_numbers(step)) for step in STEPS] != results,
        "the result does not depend on the numbers that `random` returns. All chance must come from them",
    )
    expect.that(
        [tokens_of(answer, step) for step in STEPS] == results,
        "the result does not depend on `random` alone: the same step gives other tokens when it is repeated",
    )
    wrong = wrongly_kept(results)
    for message, rule in RULES.items():
        if wrong and all(keeps(s, t, rule(s)) for s, t in zip(STEPS, results, strict=True)):
            raise Wrong(f"{message}. {wrong}")
    rejecting = [(s, t, s.num_accepted) for s, t in zip(STEPS, results, strict=True) if s.num_accepted < s.k]
    for message, shape in SHAPES.items():
        if all(shape(*case) for case in rejecting):
            step, tokens, n = rejecting[0]
            raise Wrong(f"{message}. For example: {step.about(n, tokens)}")
    expect.that(not wrong, f"the wrong drafts are kept. {wrong}")
    return results


def with_other_numbers(step: Step) -> Step:
    return Step(step.p, step.q, step.drafts, {s: [1 - u for u in row] for s, row in step.u.items()})


def keeps(step: Step, tokens: list[int], n: int) -> bool:
    """Return whether the tokens are the first n drafts and one more token. It may be missing after the last draft."""
    return tokens[:n] == step.drafts[:n] and (len(tokens) == n + 1 or n == len(tokens) == step.k)


def wrongly_kept(results: Sequence[list[int]]) -> str:
    """Return the first step in which the wrong drafts are kept, in words, or ""."""
    for step, tokens in zip(STEPS, results, strict=True):
        if not keeps(step, tokens, step.num_accepted):
            pairs = zip(tokens, step.drafts, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            return f"For example: {step.about(min(same, step.num_accepted, step.k - 1), tokens)}"
    return ""


@ACCEPT_OR_CORRECT.part("which drafts are kept", points=2)
def accept_drafts(answer: Answer) -> None:
    accepted(answer)


Weights = Callable[[Step, int], Tensor]  # of a step, for the token in row i


def corrected(step: Step, weights: Weights = Step.rest, stream: Stream = Stream.RESIDUAL) -> int:
    """Return the last token of a step that rejects a draft."""
    i = step.num_accepted
    return draw(weights(step, i), step.u[stream][i])


def without_draft(step: Step, i: int) -> Tensor:
    return step.p[i].index_fill(0, torch.tensor(step.drafts[i]), 0.0)


CORRECTIONS: dict[str, Callable[[Step], int]] = {
    "the corrected token is drawn from p[i] itself. Accepted drafts already contribute min(p, q), so draw from the "
    "rest: max(p[i] - q[i], 0)": partial(corrected, weights=lambda s, i: s.p[i]),
    "only the rejected draft is excluded from p[i]. Draw from max(p[i] - q[i], 0), which also reduces every other "
    "token that q proposes": partial(corrected, weights=without_draft),
    "the corrected token is drawn from |p - q|. A token with p < q was proposed too often, so its weight is 0: "
    "max(p[i] - q[i], 0)": partial(corrected, weights=lambda s, i: (s.p[i] - s.q[i]).abs()),
    "the corrected token is drawn from max(q - p, 0). Draw from max(p - q, 0)": partial(
        corrected, weights=lambda s, i: (s.q[i] - s.p[i]).clamp(min=0)
    ),
    "the corrected token is drawn from q[i], the draft's own distribution": partial(
        corrected, weights=lambda s, i: s.q[i]
    ),
    "the corrected token is drawn with p of the row after. The place is that of draft i: p[i] - q[i]": partial(
        corrected, weights=lambda s, i: (s.p[i + 1] - s.q[i]).clamp(min=0)
    ),
    "the number that rejected the draft also draws the corrected token. This number is not below the ratio, so it is "
    "not uniform any more: use Stream.RESIDUAL": partial(corrected, stream=Stream.ACCEPT),
    "the corrected token is drawn with the number of Stream.DRAFT, which has drawn the draft": partial(
        corrected, stream=Stream.DRAFT
    ),
    "the corrected token is drawn with the number of Stream.BONUS. Use Stream.RESIDUAL": partial(
        corrected, stream=Stream.BONUS
    ),
    "the corrected token is the most likely one of the residual. Draw it": lambda s: int(
        s.rest(s.num_accepted).argmax()
    ),
}


@ACCEPT_OR_CORRECT.part("the corrected token", points=2)
def accept_correction(answer: Answer) -> None:
    cases = zip(STEPS, accepted(answer), strict=True)
    steps, tokens = zip(*[(s, t) for s, t in cases if s.num_accepted < s.k], strict=True)
    last = [t[-1] for t in tokens]
    for step, token, all_tokens in zip(steps, last, tokens, strict=True):
        if token != corrected(step):
            i, message = step.num_accepted, expect.explanation(CORRECTIONS, steps, last)
            raise Wrong(
                f"{message or 'the corrected token is not drawn from max(p - q, 0)'}. For example: "
                f"{step.about(i, all_tokens)}. max(p - q, 0) is {rounded(step.rest(i))}, the number of "
                f"Stream.RESIDUAL is {step.u[Stream.RESIDUAL][i]:.3f}, and the token is {corrected(step)}"
            )


def rounded(weights: Tensor) -> list[float]:
    return [round(float(weight), 3) for weight in weights]


def after_drafts(step: Step, k: int) -> Tensor:
    return step.p[k]


def bonus(step: Step, weights: Weights = after_drafts, stream: Stream = Stream.BONUS) -> int:
    """Return the last token of a step that accepts all k drafts."""
    return draw(weights(step, step.k), step.u[stream][step.k])


BONUS: dict[str, Callable[[Step], int]] = {
    "the bonus token is drawn from p[k - 1], the last draft's own row. p has one more row, p[k], for the token after "
    "the last draft": partial(bonus, weights=lambda s, k: s.p[k - 1]),
    "the bonus token is the most likely token of p[k]. Draw it": lambda s: int(s.p[-1].argmax()),
    "the bonus token is drawn from q, the draft's distribution. Draw it from p[k]": partial(
        bonus, weights=lambda s, k: s.q[k - 1]
    ),
    "the bonus token is drawn from a residual. No draft was proposed in its place, so draw it from p[k]": partial(
        bonus, weights=lambda s, k: (s.p[k] - s.q[k - 1]).clamp(min=0)
    ),
    "the bonus token is drawn with the number of row k - 1. Its row is k": lambda s: draw(
        s.p[-1], s.u[Stream.BONUS][s.k - 1]
    ),
    "the bonus token is drawn with the number of Stream.RESIDUAL. Use Stream.BONUS": partial(
        bonus, stream=Stream.RESIDUAL
    ),
    "the bonus token is drawn with the number of Stream.ACCEPT. Use Stream.BONUS": partial(
        bonus, stream=Stream.ACCEPT
    ),
}


@ACCEPT_OR_CORRECT.part("the bonus token", points=1)
def accept_bonus(answer: Answer) -> None:
    cases = zip(STEPS, accepted(answer), strict=True)
    full = [(s, t) for s, t in cases if s.num_accepted == s.k]
    for step, tokens in full:
        expect.that(
            tokens != step.drafts,
            "there is no bonus token. If all k drafts are accepted, p[k] is known too: draw one more token "
            "from it. Without it, a step gives up a token that costs nothing",
        )
    steps, last = [s for s, _ in full], [t[-1] for _, t in full]
    for step, token in zip(steps, last, strict=True):
        if token != bonus(step):
            message = expect.explanation(BONUS, steps, last)
            raise Wrong(
                f"{message or 'the bonus token is not drawn from p[k] with Stream.BONUS'}. For example: the drafts "
                f"{step.drafts} are all accepted, p[{step.k}] is {rounded(step.p[-1])}, the number of Stream.BONUS is "
                f"{step.u[Stream.BONUS][step.k]:.3f}. The bonus token is {bonus(step)}, and yours is {token}"
            )
    for step in WITHOUT_DRAFTS:
        expect.equal(tokens_of(answer, step), [bonus(step)], "the result for a step without drafts")


def edge(p: Sequence[float], q: Sequence[float], u: float) -> Step:
    """Return a step with the draft 0 in row 0 and this random number for it."""
    numbers = {stream: [0.5, 0.5] for stream in Stream} | {Stream.ACCEPT: [u, 0.5]}
    return Step(torch.tensor([p, [0.25] * 4]), torch.tensor([q]), [0], numbers)


def between() -> Step:
    """Return a step whose random number is below the ratio of p and q, but not below the ratio in float32."""
    for n in range(3, 99):
        step = edge([1 / n, 0.5, 0.5 - 1 / n, 0.0], [2.7 / n, 0.1, 0.9 - 2.7 / n, 0.0], 0.0)
        low, high = float(step.p[0, 0] / step.q[0, 0]), step.ratio(0)
        if high - low > 1e-8:
            return edge(step.p[0].tolist(), step.q[0].tolist(), (low + high) / 2)
    raise ValueError("no ratio is rounded down")


EDGES = {
    "the ratio, or its comparison with the random number, is in float32. In it, the random number and the ratio are "
    "equal here. Make both Python numbers with float(), or use float64": between(),
    "a draft with p(x) = 0 is accepted if the random number is 0. The model cannot produce this token: accept only if "
    "the random number is less than the ratio": edge([0, 0.4, 0.3, 0.3], [0.4, 0.2, 0.2, 0.2], 0.0),
    "the ratio is 1 and the random number 1 - 2**-53, the largest one, so the draft must be accepted. In float32 this "
    "number is 1": edge([0.4, 0.3, 0.2, 0.1], [0.4, 0.1, 0.1, 0.4], 1 - 2**-53),
    "p is certain of the draft, as at temperature 0, so it must be accepted": edge(
        [1, 0, 0, 0], [0.4, 0.2, 0.2, 0.2], 0.999
    ),
    "p is certain of another token, as at temperature 0, so the draft must be rejected": edge(
        [0, 0, 1, 0], [0.9, 0.1, 0, 0], 0.001
    ),
}


@ACCEPT_OR_CORRECT.part("in float64, and at the edges", points=1)
def accept_edges(answer: Answer) -> None:
    accepted(answer)
    for message, step in EDGES.items():
        tokens = tokens_of(answer, step)
        expect.that(
            (tokens[:1] == step.drafts) == step.accepts(0), f"{message}. For example: {step.about(0, tokens)}"
        )


# --- 10.2 residual ---

Pair = tuple[Tensor, Tensor]  # p and q [R, V]


def right_residual(p: Tensor, q: Tensor) -> Tensor:
    rest = (p.double() - q).clamp(min=0)
    total = rest.sum(-1, keepdim=True)
    return torch.where(total > 0, rest / total, p.double()).float()


def divided(rest: Tensor, total: Tensor | None = None) -> Tensor:
    return rest / (rest.sum(-1, keepdim=True) if total is None else total)


def exceeds(p: Tensor, q: Tensor) -> Tensor:
    return (p - q).clamp(min=0)


def or_p(result: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return `result` with p in the rows that have no residual."""
    return torch.where(exceeds(p, q).sum(-1, keepdim=True) > 0, result, p)


def pairs(seeds: Iterable[int], sizes: Sequence[float] = (1.0,)) -> list[Pair]:
    """Return distributions whose logits differ by about `sizes[row % len(sizes)]`."""
    found = []
    for seed in seeds:
        logits, size = expect.randn(5, 7, seed=seed), torch.tensor(sizes)[torch.arange(5) % len(sizes), None]
        found.append((logits.softmax(-1), (logits + size * expect.randn(5, 7, seed=seed + 100)).softmax(-1)))
    return found


CERTAIN = torch.eye(7)[[2, 0, 6, 3, 3]]  # q of drafts that count as certain
ORDINARY = [*pairs(range(3)), *pairs([3, 4], [1.0, 1e-3, 1e-4]), (pairs([5])[0][0], CERTAIN)]


def rows_without() -> list[Pair]:
    """Return pairs with rows that have no residual: equal ones, and ones that differ by rounding."""
    found = []
    for p, q in pairs([6, 7]):
        q[1] = p[1]
        q[3] = p[3] * (1 + 1e-6)  # a little more everywhere
        found.append((p, q))
    return [*found, (p[[1, 3]], q[[1, 3]])]


SUM = "Divide each row by the sum of its clipped numbers"
RESIDUALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "this is p. It must come from the part of p that exceeds q: max(p - q, 0)": lambda p, q: p,
    "this is p - q, with negative numbers. A weight must not be negative: clip p - q at 0, then divide by the sum": (
        lambda p, q: p - q
    ),
    "this is p - q divided by the sum of p - q, which is 0 up to rounding. Clip p - q at 0 first": (
        lambda p, q: divided(p - q)
    ),
    "this is |p - q|. Tokens with p < q were proposed too often, so their weight is 0: clip p - q at 0": (
        lambda p, q: or_p(divided((p - q).abs()), p, q)
    ),
    "this is max(q - p, 0), the part of q that is rejected. Take max(p - q, 0)": lambda p, q: divided(
        exceeds(q, p)
    ),
    f"a row does not add to 1: max(p - q, 0) is not divided by its sum. {SUM}": lambda p, q: or_p(
        exceeds(p, q), p, q
    ),
    "a row adds to 1/2: it is divided by the sum of |p - q|. Clip before you take the sum": (
        lambda p, q: or_p(divided(exceeds(p, q), (p - q).abs().sum(-1, keepdim=True)), p, q)
    ),
    f"rows are divided by the sum of all rows. {SUM}": lambda p, q: divided(
        exceeds(p, q), exceeds(p, q).sum()
    ),
    f"the sums run over rows, not over tokens. {SUM}": lambda p, q: torch.where(
        exceeds(p, q).sum(0) > 0, divided(exceeds(p, q), exceeds(p, q).sum(0)), p
    ),
    f"this is a softmax of max(p - q, 0), which also gives a chance to tokens whose weight is 0. {SUM}": (
        lambda p, q: exceeds(p, q).softmax(-1)
    ),
    f"this is a softmax of p - q, which also gives a chance to tokens whose weight is 0. {SUM}": (
        lambda p, q: (p - q).softmax(-1)
    ),
    "this is min(p, q), the part that accepted drafts give. The residual is the other part of p: max(p - q, 0)": (
        lambda p, q: divided(torch.minimum(p, q))
    ),
    "this is the most likely token of the residual alone. Return the chance of every token": (
        lambda p, q: torch.zeros_like(p).scatter(-1, (p - q).argmax(-1, keepdim=True), 1.0)
    ),
}
NOTHING_LEFT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "the result has p in all rows of a whole batch, because one row has no residual. Decide for each row": (
        lambda p, q: p if (exceeds(p, q).sum(-1) == 0).any() else divided(exceeds(p, q))
    ),
    "a row of max(p - q, 0) has the sum 0, and 0 / 0 is NaN. p and q are equal up to rounding: return p there": (
        lambda p, q: divided(exceeds(p, q))
    ),
    "a row is all zeros, and no token can be drawn from zeros. p and q are equal up to rounding: return p there": (
        lambda p, q: divided(exceeds(p, q)).nan_to_num(0.0)
    ),
    "a row without a residual is uniform. p and q are equal up to rounding: return p there": (
        lambda p, q: divided(exceeds(p, q)).nan_to_num(1 / p.shape[-1])
    ),
    "only a row of q that equals p counts as a row without a residual. Rounding can leave the sum 0 although p and q "
    "are not equal: test the sum": lambda p, q: torch.where(
        (p == q).all(-1, keepdim=True), p, divided(exceeds(p, q))
    ),
    "p stays only in a batch in which no row has a residual. Decide for each row": lambda p, q: (
        divided(exceeds(p, q)).nan_to_num(0.0) if exceeds(p, q).any() else p
    ),
}
SMALL = (
    "a small residual is wrong: p and q are close there, and the sum of max(p - q, 0) is about {total:.0e}. A residual "
    "counts, however small: add nothing to the denominator, and return p only if the sum is 0"
)


def equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.isclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True).all())


def of_pair(make: Callable[[Tensor, Tensor], Tensor], pair: Pair) -> Tensor:
    return make(*pair)


def check_residual(
    residual: Answer, cases: Sequence[Pair], mistakes: dict[str, Callable[[Tensor, Tensor], Tensor]]
) -> None:
    results = []
    for p, q in cases:
        result = residual(p.clone(), q.clone())
        expect.something(result)
        one_row = isinstance(result, Tensor) and result.shape == p[0].shape
        expect.that(not one_row, "the result has one row. Return the residual of each row: [R, V]")
        expect.tensor(result, p.shape, "R V", torch.float32)
        results.append(result)
    right = [right_residual(p, q) for p, q in cases]
    if all(map(equal, results, right)):
        return
    of_pairs = {message: partial(of_pair, make) for message, make in mistakes.items()}
    if message := expect.explanation(of_pairs, cases, results, equal):
        raise Wrong(message)
    for (p, q), result, wanted in zip(cases, results, right, strict=True):
        for row in range(len(p)):
            if equal(result[row], wanted[row]):
                continue
            total = float(exceeds(p, q)[row].sum())
            if 0 < total < 0.01:
                raise Wrong(SMALL.format(total=total))
            raise Wrong(
                f"p = {rounded(p[row])} and q = {rounded(q[row])} give {rounded(result[row])}; "
                f"{rounded(wanted[row])} is right"
            )


@RESIDUAL.part("the part of p that exceeds q", points=3)
def residual_ordinary(residual: Answer) -> None:
    check_residual(residual, ORDINARY, RESIDUALS)


@RESIDUAL.part("rows without a residual", points=2)
def residual_nothing(residual: Answer) -> None:
    check_residual(residual, ORDINARY, RESIDUALS)
    check_residual(residual, [*rows_without(), ORDINARY[0]], NOTHING_LEFT)

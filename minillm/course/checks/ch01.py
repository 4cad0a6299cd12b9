"""Chapter 01, two phases: its exercises' checks."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch01 import CAUSAL_ATTENTION, DISTRIBUTION, GENERATE, STABLE_SOFTMAX


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, first_hidden: int = 1, scale: float | None = None, keys: int = -1
) -> Tensor:
    """softmax(mask(q k^T · scale)) v for q, k, v [T, H, D]; the other arguments are the mistakes that people make.

    Query t sees key j while j < t + first_hidden. `keys` is the axis of [H, T, T] over which the softmax runs.
    """
    scores = torch.einsum("thd,shd->hts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(first_hidden)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(keys)
    return torch.einsum("hts,shd->thd", weights, v)


def masked_too_late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The weights of the future are zeroed after the softmax, so a row's sum is less than 1."""
    scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hts,shd->thd", scores.softmax(-1).tril(), v)


def heads_compared(q: Tensor, k: Tensor, v: Tensor, *, triangle: bool = False) -> Tensor:
    """q k^T of [T, H, D] as it stands: scores [T, H, H]. `triangle`: masked as if its last two axes were tokens."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1 if triangle else scores.shape[-1])
    return torch.matmul(scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


HEADS = (
    "the scores are [T, H, H]: they compare the heads of one token with each other; they must be [H, T, T], "
    "each head's tokens with each other: bring H to the front"
)


@contextmanager
def sizes_explained() -> Iterator[None]:
    """A mask [T, T] does not fit scores that are not [H, T, T]: then torch speaks of sizes alone."""
    try:
        yield
    except RuntimeError as error:
        if "must match the size" in str(error):
            error.args = (f"{error}. Are the scores [H, T, T]?",)
        raise


def by_hand(attend: Answer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    message = "scaled_dot_product_attention is what you are writing: do without it"
    with sizes_explained(), expect.without("scaled_dot_product|multi_head|_safe_softmax", message):
        return attend(q, k, v)  # type: ignore[no-any-return]


def what_it_sees(attend: Answer, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Which token a row sees or misses wrongly, by what changes when one token's key and value do."""

    def moved(function: Callable[..., Tensor], token: int) -> Tensor:
        other = torch.arange(len(q))[:, None, None] == token
        return (function(q, k + 5 * other, v + 5 * other) - function(q, k, v)).abs().flatten(1).amax(1) > 1e-5

    mine = partial(by_hand, attend)
    seen, right = (torch.stack([moved(f, token) for token in range(len(q))], 1) for f in (mine, attention))
    if len(future := seen.triu(1).nonzero()):
        row, token = future[0].tolist()
        return (
            f"row {row} changes with token {token}, which comes later. A score of the future must be -inf: 0, or a "
            "large negative number, is a score like any other"
        )
    if len(missed := (right & ~seen).nonzero()):
        row, token = missed[0].tolist()
        return f"row {row} does not change with token {token}: a token sees all tokens before it"
    return ""


def check_attention(
    attend: Answer, q: Tensor, k: Tensor, v: Tensor, mistakes: dict[str, Tensor] | None = None
) -> None:
    expect.close(
        by_hand(attend, q, k, v),
        attention(q, k, v),
        "T H D",
        mistakes=mistakes,
        why=lambda _: what_it_sees(attend, q, k, v),
    )


@CAUSAL_ATTENTION.part("one token sees itself", points=1)
def one_token(attend: Answer) -> None:
    q, k, v = (expect.randn(1, 2, 4, seed=seed) for seed in range(3))
    out = by_hand(attend, q, k, v)
    mistakes = {HEADS: heads_compared(q, k, v), HEADS + ", then mask": heads_compared(q, k, v, triangle=True)}
    expect.close(out, v, "T H D", mistakes=mistakes)
    expect.own_memory(out, q=q, k=k, v=v)


@CAUSAL_ATTENTION.part("the mask, the scale, the softmax", points=2)
def values(attend: Answer) -> None:
    q, k, v = (expect.randn(6, 2, 16, seed=seed) for seed in range(3, 6))
    check_attention(
        attend,
        q,
        k,
        v,
        mistakes={
            HEADS: heads_compared(q, k, v),
            HEADS + ", then mask": heads_compared(q, k, v, triangle=True),
            "row 3 attends to token 4: the mask is off by one, and token t may see 0 … t only": attention(
                q, k, v, first_hidden=2
            ),
            "row 3 does not attend to token 3: a token sees itself too": attention(q, k, v, first_hidden=0),
            "every token sees the whole text, the future too: where is the mask?": attention(
                q, k, v, first_hidden=6
            ),
            "the mask acts after the softmax, so that a row's weights no longer sum to 1": masked_too_late(
                q, k, v
            ),
            "the scores are not divided by sqrt(D)": attention(q, k, v, scale=1.0),
            "the scores are divided by D; it is sqrt(D) that keeps their variance at 1": attention(
                q, k, v, scale=1 / 16
            ),
            "the softmax runs over the queries; each query's weights must sum to 1 over the keys": attention(
                q, k, v, keys=-2
            ),
        },
    )


@CAUSAL_ATTENTION.part("large scores and a longer text", points=1)
def large_scores(attend: Answer) -> None:
    q, k, v = (expect.randn(5, 1, 8, seed=seed) for seed in range(6, 9))
    check_attention(attend, 300 * q, k, v)
    q, k, v = (expect.randn(40, 3, 12, seed=seed) for seed in range(9, 12))
    check_attention(attend, q, k, v)


def without_softmax(softmax: Answer, x: Tensor) -> Tensor:
    with expect.without("softmax|softmin", "softmax is what you are writing: do without it"):
        return softmax(x)  # type: ignore[no-any-return]


def sums(out: Tensor) -> str:
    """What the sums of wrong rows say."""
    total = out.double().sum(-1).reshape(-1)
    wrong = ((total - 1).abs() > 1e-3).nonzero()
    return (
        f"row {int(wrong[0])} sums to {total[wrong[0]].item():.3g}; each row must sum to 1"
        if len(wrong)
        else ""
    )


@STABLE_SOFTMAX.part("each row sums to 1", points=1)
def rows(softmax: Answer) -> None:
    x = expect.randn(2, 3, 5, seed=9)
    right, e = x.softmax(-1), x.exp()
    out = without_softmax(softmax, x)
    whole = "the whole tensor sums to 1; each row must, along the last axis"
    expect.close(
        out,
        right,
        "A B V",
        mistakes={
            "the first axis sums to 1; the last one must": x.softmax(0),
            "the middle axis sums to 1; the last one must": x.softmax(1),
            whole: e / e.sum(),
            whole + " (keepdim=True keeps the axis)": (e / e.amax(-1, keepdim=True))
            / (e / e.amax(-1, keepdim=True)).sum(),
        },
        why=sums,
    )
    expect.own_memory(out, x=x)
    for x in (expect.randn(7), expect.randn(5, 4).T, expect.randn(2, 1, 2, 3), torch.ones(3, 1)):
        axes = " ".join("ABCV"[-x.dim() :])
        expect.close(without_softmax(softmax, x), x.softmax(-1), axes, why=sums)


@STABLE_SOFTMAX.part("large and small scores", points=1)
def large_and_small(softmax: Answer) -> None:
    x = torch.tensor([[1000.0, 1001.0, 999.0], [-1000.0, -1001.0, -999.0], [1.0, 2.0, 3.0]])
    together = (x - x.max()).exp()
    expect.close(
        without_softmax(softmax, x),
        x.softmax(-1),
        "row V",
        why=sums,
        mistakes={
            "exp overflows: exp(1000) is infinite, and inf / inf is NaN": x.exp()
            / x.exp().sum(-1, keepdim=True),
            "one maximum for the whole tensor: rows far below it become 0 / 0. Each row has its own": together
            / together.sum(-1, keepdim=True),
            "the scores are clamped, so that 1000, 1001 and 999 become equal": _clamped(x),
            "scores beyond a limit become equal, 1000 and 1001 as well as -1000 and -1001: shift each row by its "
            "maximum, don't clip it": _clamped(x, least=-80.0),
        },
    )


def _clamped(x: Tensor, least: float = -torch.inf) -> Tensor:
    e = x.clamp(least, 80).exp()
    return e / e.sum(-1, keepdim=True)


@STABLE_SOFTMAX.part("masked scores get nothing", points=1)
def masked(softmax: Answer) -> None:
    x = torch.tensor([[0.5, -torch.inf, -torch.inf], [-1.0, -2.0, -torch.inf]])
    as_zero = x.masked_fill(x.isinf(), 0.0).softmax(-1)
    expect.close(
        without_softmax(softmax, x),
        x.softmax(-1),
        "row V",
        why=sums,
        mistakes={"masked scores (-inf) are taken for 0 and get a share; their probability is 0": as_zero},
    )


def chances(
    logits: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    *,
    extra: int = 0,
    of_all: bool = False,
    late: bool = False,
    cut: float = -torch.inf,
    prefer: Tensor | None = None,
) -> Tensor:
    """Temperature, then top-k, then top-p, on logits [V]; the other arguments are the mistakes that people make.

    The nucleus gets `extra` tokens; its mass is counted `of_all` tokens or of what top-k left; the temperature comes
    `late`, after the cuts; a token is cut by the score `cut`. Of equal tokens those come first that have more in
    `prefer`, an answer which may have chosen among them.
    """
    first = (torch.zeros_like(logits) if prefer is None else prefer).argsort(descending=True, stable=True)
    order = first[logits[first].argsort(descending=True, stable=True)]
    best = logits[order] if late else logits[order] / temperature
    probs = best.softmax(-1)
    if top_k:
        best[top_k:] = cut
    probs = probs if of_all else best.softmax(-1)
    if top_p < 1:
        best[max(1, int((probs.cumsum(-1) - probs < top_p).sum()) + extra) :] = cut
    best = best / temperature if late else best
    return torch.empty_like(best).scatter(0, order, best.softmax(-1))


LOGITS = torch.tensor([0.2, 2.1, -0.4, 1.5, 0.9, 1.8, -1.0, 1.2])  # in order: 1 5 3 7 4 0 2 6
SORTED = "the result is in sorted order: entry i must belong to token i"
ZERO = "a token that is cut has a logit of 0, which is a score like any other: use -inf"
TOO_SMALL = "the token that crosses top_p is missing: the nucleus must reach top_p"
TOO_LARGE = "the nucleus has one token too many: it is the smallest set that reaches top_p"
NOT_OFF = (
    "top_p=1 is off, but yours cuts the least likely token: its sum includes itself and so reaches 1. Keep each token "
    "for which the sum of those *before* it is below top_p"
)


def cuts_the_least(distribution: Answer, temperature: float) -> bool:
    """Is the least likely token alone cut where top-k and top-p are both off?"""
    out = distribution(LOGITS, temperature, 0, 1.0)
    expect.tensor(out, LOGITS.shape, "V", LOGITS.dtype)
    return torch.equal(out > 0, LOGITS.ne(LOGITS.min()))


def check_row(
    distribution: Answer, logits: Tensor, temperature: float, top_k: int, top_p: float, rule: str
) -> None:
    """Compare with the right probabilities, where one of equal tokens may be another. `rule` is what this row shows."""
    out = distribution(logits, temperature, top_k, top_p)
    case = f"distribution(logits, {temperature}, {top_k}, {top_p})"
    expect.tensor(out, logits.shape, "V", logits.dtype, case)
    if temperature == 0:
        right = chances(logits, 1.0, 1, 1.0, prefer=out)
    else:
        right = chances(logits - logits.max(), temperature, top_k, top_p, prefer=out)
    left, wanted = (int((probs > 1e-6).sum()) for probs in (out, right))  # rounding may cut what is less
    if left != wanted and not out.isnan().any():
        raise Wrong(f"{case}: {left} of {len(logits)} tokens have a probability, and {wanted} should. {rule}")
    expect.close(out, right, "V", name=case)


EVEN, TIES, WIDE = torch.zeros(4), torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, -1.0]), expect.randn(3000, seed=20)
STEEP = torch.tensor([30.0, 0.0, -20.0, 30 - 2**-10, -40.0])
GREEDY = "Temperature 0: one token has all, of equal ones any"
K_TOKENS = "top-k keeps k tokens; equal ones do not count as one, and k may exceed the vocabulary"
IN_ORDER = "Temperature, then top-k, then top-p on what is left"
EDGES = (
    (LOGITS, 0.0, 3, 0.5, GREEDY),
    (LOGITS - 9, 0.0, 0, 0.01, GREEDY),
    (TIES, 0.0, 0, 1.0, GREEDY),
    (TIES, 0.0, 2, 0.4, GREEDY),
    (STEEP, 2**-9, 0, 1.0, "A small temperature is not 0: those near the likeliest count"),
    (LOGITS * 100, 1.5, 0, 1.0, "Take the largest score off first: exp overflows above 88"),
    *((TIES, 1.3, k, 1.0, K_TOKENS) for k in (1, 2, len(TIES), 50)),
    (LOGITS, 1.0, 0, 1e-6, "The nucleus is never empty, and has one token if that reaches top_p"),
    *((EVEN, 1.0, 0, p, "A sum that is exactly top_p reaches it") for p in (0.5, 0.75)),
    (EVEN, 1.0, 0, 0.3, "The smallest set: of equal tokens one may stay and another go"),
    (WIDE, 1.0, 0, 0.8, "Sum the probabilities in their own precision"),
    *((-WIDE[:40], t, k, p, IN_ORDER) for t, k, p in ((0.7, 3, 0.95), (1.5, 50, 0.65), (0.3, 6, 0.02))),
)


@DISTRIBUTION.part("temperature", points=1)
def temperature(distribution: Answer) -> None:
    for t in (0.5, 1.6):
        expect.that(not cuts_the_least(distribution, t), NOT_OFF)
        expect.close(
            distribution(LOGITS, t, 0, 1.0),
            right := chances(LOGITS, t, 0, 1.0),
            "V",
            mistakes={
                "the logits are multiplied by the temperature; it divides them": (LOGITS * t).softmax(-1),
                SORTED: right.sort(descending=True).values,
                "top_k=0 cuts every token; it means that top-k is off": torch.full_like(LOGITS, torch.nan),
            },
        )


@DISTRIBUTION.part("top-k", points=1)
def top_k(distribution: Answer) -> None:
    out = distribution(LOGITS, 0.8, 3, 1.0)
    expect.tensor(out, LOGITS.shape, "V", LOGITS.dtype)
    if int((out > 0).sum()) == 2:  # one too few: is it top-k, or a top-p that should be off?
        expect.that(not cuts_the_least(distribution, 0.8), NOT_OFF)
    expect.close(
        out,
        right := chances(LOGITS, 0.8, 3, 1.0),
        "V",
        mistakes={
            "top-k leaves one token too few": chances(LOGITS, 0.8, 2, 1.0),
            ZERO: chances(LOGITS, 0.8, 3, 1.0, cut=0.0),
            SORTED: right.sort(descending=True).values,
            "what top-k leaves is not divided by its sum, so the probabilities sum to less than 1": _unscaled(
                right, 0.8
            ),
        },
    )


@DISTRIBUTION.part("top-p", points=2)
def top_p(distribution: Answer) -> None:
    for p in (0.5, 0.8):
        expect.close(
            distribution(LOGITS, 1.0, 0, p),
            right := chances(LOGITS, 1.0, 0, p),
            "V",
            mistakes={
                TOO_SMALL: chances(LOGITS, 1.0, 0, p, extra=-1),
                TOO_LARGE: chances(LOGITS, 1.0, 0, p, extra=1),
                ZERO: chances(LOGITS, 1.0, 0, p, cut=0.0),
                SORTED: right.sort(descending=True).values,
                "what top-p leaves is not divided by its sum, so the probabilities sum to less than 1": _unscaled(
                    right, 1.0
                ),
            },
        )
    out = distribution(LOGITS, 1.0, 0, 0.01)
    expect.that(bool((out > 0).any()), "a small top_p leaves no token at all: the likeliest always stays")
    expect.close(out, chances(LOGITS, 1.0, 0, 0.01), "V")


def _unscaled(right: Tensor, temperature: float) -> Tensor:
    return (LOGITS / temperature).softmax(-1) * (right > 0)


@DISTRIBUTION.part("all three, in their order", points=1)
def order(distribution: Answer) -> None:
    # Each mistake needs numbers on which it looks like no other one.
    expect.close(
        distribution(LOGITS, 0.5, 7, 0.85),
        chances(LOGITS, 0.5, 7, 0.85),
        "V",
        mistakes={
            TOO_SMALL: chances(LOGITS, 0.5, 7, 0.85, extra=-1),
            TOO_LARGE: chances(LOGITS, 0.5, 7, 0.85, extra=1),
            "the temperature comes first: the cuts must see the scores already divided by it": chances(
                LOGITS, 0.5, 7, 0.85, late=True
            ),
        },
    )
    expect.close(
        distribution(LOGITS, 2.0, 4, 0.6),
        chances(LOGITS, 2.0, 4, 0.6),
        "V",
        mistakes={
            "top-p counts the probabilities before top-k; it acts on what top-k left, whose sum is 1 again": chances(
                LOGITS, 2.0, 4, 0.6, of_all=True
            ),
        },
    )


@DISTRIBUTION.part("temperature 0, ties and other edges", points=1)
def greedy(distribution: Answer) -> None:
    right = torch.zeros_like(LOGITS)
    right[1] = 1.0
    expect.close(
        distribution(LOGITS, 0.0, 0, 1.0),
        right,
        "V",
        mistakes={
            "temperature 0 divides by 0; it means: all probability to the likeliest token": torch.full_like(
                LOGITS, torch.nan
            )
        },
    )
    for logits, t, k, p, rule in EDGES:
        check_row(distribution, logits, t, k, p, rule)


class Language:
    """A model whose next token depends on the whole text, and which remembers what it was asked."""

    vocab_size = 13

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def after(self, ids: Sequence[int]) -> int:
        return sum((i + 2) * (token + 1) for i, token in enumerate(ids)) % self.vocab_size

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Token ids [T] -> logits [T, vocab], as `forward` of the exercise."""
        text = [int(token) for token in ids]
        self.calls.append(text)
        rows = torch.zeros(len(text), self.vocab_size)
        for t in range(len(text)):
            rows[t, self.after(text[: t + 1])] = 1.0
        return rows

    def text(self, prompt: Sequence[int], length: int) -> list[int]:
        """The right continuation."""
        ids = list(prompt)
        for _ in range(length):
            ids.append(self.after(ids))
        return ids[len(prompt) :]


class Draws:
    """A `sample` that is not always the likeliest token, and counts how often it is asked."""

    def __init__(self, every: int = 0) -> None:
        self.every, self.number = every, 0

    def __call__(self, row: Tensor) -> int:
        """Raises ValueError for anything but one row."""
        if row.dim() != 1:
            raise ValueError(f"sample takes one row of logits [vocab], and got {list(row.shape)}")
        self.number += 1
        off = 1 if self.every and self.number % self.every == 0 else 0
        return (int(row.argmax()) + off) % len(row)


def likeliest(row: Tensor) -> int:
    return Draws()(row)


PROMPT = [9, 5, 2]
NEVER = 99  # an end token that does not come
GOES_ON = "it goes on after the end token"


@GENERATE.part("the text goes on", points=2)
def continuation(generate: Answer) -> None:
    language = Language()
    right, first = language.text(PROMPT, 5), language.after(PROMPT[:1])
    out = generate(language, list(PROMPT), likeliest, 5, NEVER)
    expect.something(out)
    expect.that(isinstance(out, list), f"the result is a {type(out).__name__}; a list of token ids is wanted")
    calls = language.calls
    expect.that(
        out[: len(PROMPT)] != PROMPT, "the result begins with the prompt; only the new tokens are wanted"
    )
    expect.that(
        calls[1:2] != [PROMPT],
        "forward gets the same text at every step: append each new token to what it gets next",
    )
    expect.that(
        all(len(call) >= len(PROMPT) for call in calls),
        "forward gets only the newest token; nothing remembers the rest, so it must get the whole text",
    )
    expect.that(
        out[:1] != [first], "sample gets row 0, what follows the first token; the text's end is the last row"
    )
    expect.that(len(out) <= 5, f"max_tokens=5, and {len(out)} tokens come back")
    expect.equal(out, right)
    expect.that(
        generate(Language(), list(PROMPT), likeliest, 5, NEVER) == right,
        "a second call with the same prompt gives something else: it begins with a new list",
    )


@GENERATE.part("the end token ends it", points=1)
def end(generate: Answer) -> None:
    right = Language().text(PROMPT, 4)  # ends with 1, which has not come before
    out = generate(Language(), list(PROMPT), likeliest, 8, right[-1])
    expect.something(out)
    expect.that(
        out != right[:-1], "the text comes back without the end token; the caller must see that it ended"
    )
    expect.that(out[: len(right)] != right or len(out) == len(right), GOES_ON)
    expect.equal(out, right)


@GENERATE.part("an end token in the prompt does not", points=1)
def end_in_prompt(generate: Answer) -> None:
    prompt = [0, *PROMPT]
    out = generate(Language(), list(prompt), likeliest, 3, 0)
    expect.that(out != [], "an end token in the prompt stops it; only a new one ends the text")
    expect.equal(out, Language().text(prompt, 3))


@GENERATE.part("one pass and one draw for each token", points=1)
def passes(generate: Answer) -> None:
    dice = random.Random(0)
    scenes = [(PROMPT, 4, NEVER), (PROMPT, 0, NEVER), (PROMPT, 1, NEVER)]
    scenes += [
        (dice.choices(range(13), k=dice.randint(1, 5)), dice.randint(0, 9), dice.randrange(13))
        for _ in range(40)
    ]
    for prompt, max_tokens, eos in scenes:
        right, language, sample = list[int](), Language(), Draws(every=3)
        while len(right) < max_tokens and right[-1:] != [eos]:
            right.append(sample(language(prompt + right)[-1]))
        asked, drawn = Language(), Draws(every=3)
        out = generate(asked, list(prompt), drawn, max_tokens, eos)
        name = f"the result for the prompt {prompt}, max_tokens={max_tokens} and eos_token_id={eos}"
        expect.something(out, name)
        expect.that(len(out) <= max_tokens, f"max_tokens={max_tokens}, and {len(out)} tokens come back")
        expect.that(out[: len(right)] != right or len(out) == len(right), f"{GOES_ON} {eos}")
        for number, what in ((len(asked.calls), "forward passes"), (drawn.number, "draws")):
            expect.that(
                out != right or number == len(right),
                f"{number} {what} for {len(right)} tokens: each costs time, and one for each token is enough",
            )
        expect.that(
            out == right or drawn.number >= len(right),
            "tokens come back that `sample` did not draw from their row",
        )
        expect.equal(out, right, name)

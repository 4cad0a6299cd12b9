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
    """Return softmax(mask(q k^T · scale)) v for q, k, v [T, H, D]. The other arguments make the usual mistakes.

    Query t sees key j if j < t + first_hidden. `keys` is the axis of [H, T, T] over which the softmax runs.
    """
    scores = torch.einsum("thd,shd->hts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(first_hidden)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(keys)
    return torch.einsum("hts,shd->thd", weights, v)


def masked_too_late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return attention whose weights of later tokens are set to 0 after the softmax, so a row sums to less than 1."""
    scores = torch.einsum("thd,shd->hts", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("hts,shd->thd", scores.softmax(-1).tril(), v)


def heads_compared(q: Tensor, k: Tensor, v: Tensor, *, triangle: bool = False) -> Tensor:
    """Return attention with the scores q k^T [T, H, H]. `triangle` masks them as if their last axes were tokens."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1 if triangle else scores.shape[-1])
    return torch.matmul(scores.masked_fill(hidden, -torch.inf).softmax(-1), v)


HEADS = (
    "the scores have the shape [T, H, H]: they compare the heads of one token with each other. They must be [H, T, "
    "T], so that each head compares its tokens with each other. Move H to the front"
)


@contextmanager
def sizes_explained() -> Iterator[None]:
    """Add a hint to torch's error about sizes: a mask [T, T] does not fit scores that are not [H, T, T]."""
    try:
        yield
    except RuntimeError as error:
        if "must match the size" in str(error):
            error.args = (f"{error}. Are the scores [H, T, T]?",)
        raise


def by_hand(attend: Answer, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    message = (
        "scaled_dot_product_attention is what you are writing. Compute the scores and the softmax yourself"
    )
    with sizes_explained(), expect.without("scaled_dot_product|multi_head|_safe_softmax", message):
        return attend(q, k, v)  # type: ignore[no-any-return]


def what_it_sees(attend: Answer, q: Tensor, k: Tensor, v: Tensor) -> str:
    """Return the token that a row wrongly sees or misses, or "". Change one token at a time to find it."""

    def moved(function: Callable[..., Tensor], token: int) -> Tensor:
        other = torch.arange(len(q))[:, None, None] == token
        return (function(q, k + 5 * other, v + 5 * other) - function(q, k, v)).abs().flatten(1).amax(1) > 1e-5

    mine = partial(by_hand, attend)
    seen, right = (torch.stack([moved(f, token) for token in range(len(q))], 1) for f in (mine, attention))
    if len(future := seen.triu(1).nonzero()):
        row, token = future[0].tolist()
        return (
            f"row {row} changes with token {token}, which comes later. Set the score of a later token to -inf. A "
            "score of 0, or a large negative number, still counts in the softmax"
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
            "row 3 attends to token 4: the mask is off by one. Token t may see only tokens 0 … t": attention(
                q, k, v, first_hidden=2
            ),
            "row 3 does not attend to token 3. A token also sees itself": attention(q, k, v, first_hidden=0),
            "every token sees the whole text, later tokens included: where is the mask?": attention(
                q, k, v, first_hidden=6
            ),
            "the mask acts after the softmax, so the weights of a row no longer sum to 1. Mask the scores before "
            "the softmax": masked_too_late(q, k, v),
            "the scores are not divided by sqrt(D)": attention(q, k, v, scale=1.0),
            "the scores are divided by D. Divide them by sqrt(D), which keeps their variance at 1": attention(
                q, k, v, scale=1 / 16
            ),
            "the softmax runs over the queries. It must run over the keys, so that the weights of each query sum "
            "to 1": attention(q, k, v, keys=-2),
        },
    )


@CAUSAL_ATTENTION.part("large scores and a longer text", points=1)
def large_scores(attend: Answer) -> None:
    q, k, v = (expect.randn(5, 1, 8, seed=seed) for seed in range(6, 9))
    check_attention(attend, 300 * q, k, v)
    q, k, v = (expect.randn(40, 3, 12, seed=seed) for seed in range(9, 12))
    check_attention(attend, q, k, v)


def without_softmax(softmax: Answer, x: Tensor) -> Tensor:
    with expect.without("softmax|softmin", "softmax is what you are writing. Compute it with exp and sum"):
        return softmax(x)  # type: ignore[no-any-return]


def sums(out: Tensor) -> str:
    """Return which row does not sum to 1, with its sum, or ""."""
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
    whole = "the whole tensor sums to 1. Each row must sum to 1, along the last axis"
    expect.close(
        out,
        right,
        "A B V",
        mistakes={
            "the softmax runs over the first axis. It must run over the last axis": x.softmax(0),
            "the softmax runs over the middle axis. It must run over the last axis": x.softmax(1),
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
            "exp overflows: exp(1000) is infinite, and inf / inf is NaN. "
            "Subtract the maximum of each row first": x.exp() / x.exp().sum(-1, keepdim=True),
            "one maximum is subtracted from the whole tensor, so rows far below it become 0 / 0. Subtract the "
            "maximum of each row": together / together.sum(-1, keepdim=True),
            "the scores are clamped, so 1000, 1001 and 999 become equal. "
            "Subtract the maximum of each row instead": _clamped(x),
            "scores beyond a limit become equal: 1000 and 1001, and also -1000 and -1001. Do not clip the scores. "
            "Subtract the maximum of each row instead": _clamped(x, least=-80.0),
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
        mistakes={
            "masked scores (-inf) are treated as 0 and get a share. Their probability must be 0": as_zero
        },
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
    """Return the probabilities [V] after temperature, top-k and top-p. The other arguments make the usual mistakes.

    The nucleus gets `extra` more tokens. With `of_all`, its mass is counted before top-k. With `late`, the temperature
    comes after the cuts. A cut token gets the score `cut`. Of several equal tokens, those with more in `prefer` come
    first: an answer may have chosen among them.
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
SORTED = "the result is in sorted order. Entry i must be the probability of token i"
ZERO = "a token that is cut gets a logit of 0, so it still has a probability. Set the logit to -inf"
TOO_SMALL = "the token that crosses top_p is missing. The nucleus includes it, so that its sum reaches top_p"
TOO_LARGE = "the nucleus has one token too many. It is the smallest set whose sum reaches top_p"
NOT_OFF = (
    "top_p=1 turns top-p off, but your function cuts the least likely token. The sum that it tests includes the "
    "token itself, and so reaches 1. Keep each token for which the sum of the tokens *before* it is below top_p"
)


def cuts_the_least(distribution: Answer, temperature: float) -> bool:
    """Return whether only the least likely token is cut when top-k and top-p are both off."""
    out = distribution(LOGITS, temperature, 0, 1.0)
    expect.tensor(out, LOGITS.shape, "V", LOGITS.dtype)
    return torch.equal(out > 0, LOGITS.ne(LOGITS.min()))


def check_row(
    distribution: Answer, logits: Tensor, temperature: float, top_k: int, top_p: float, rule: str
) -> None:
    """Compare with the right probabilities; any of several equal tokens may be kept. `rule` is what this row tests."""
    out = distribution(logits, temperature, top_k, top_p)
    case = f"distribution(logits, {temperature}, {top_k}, {top_p})"
    expect.tensor(out, logits.shape, "V", logits.dtype, case)
    if temperature == 0:
        right = chances(logits, 1.0, 1, 1.0, prefer=out)
    else:
        right = chances(logits - logits.max(), temperature, top_k, top_p, prefer=out)
    left, wanted = (int((probs > 1e-6).sum()) for probs in (out, right))  # rounding may cut what is less
    if left != wanted and not out.isnan().any():
        raise Wrong(
            f"{case} gives {left} of {len(logits)} tokens a probability; {wanted} tokens should have one. {rule}"
        )
    expect.close(out, right, "V", name=case)


EVEN, TIES, WIDE = torch.zeros(4), torch.tensor([1.0, 2.0, 2.0, 0.0, 2.0, -1.0]), expect.randn(3000, seed=20)
STEEP = torch.tensor([30.0, 0.0, -20.0, 30 - 2**-10, -40.0])
GREEDY = "Temperature 0 gives all probability to the likeliest token, or to one of several equal ones"
K_TOKENS = (
    "Top-k keeps exactly k tokens, even if several are equally likely, or all tokens if there are fewer"
)
IN_ORDER = "Apply the temperature, then top-k, then top-p to the tokens that top-k kept"
EDGES = (
    (LOGITS, 0.0, 3, 0.5, GREEDY),
    (LOGITS - 9, 0.0, 0, 0.01, GREEDY),
    (TIES, 0.0, 0, 1.0, GREEDY),
    (TIES, 0.0, 2, 0.4, GREEDY),
    (
        STEEP,
        2**-9,
        0,
        1.0,
        "A small temperature is not 0: tokens close to the likeliest one keep a probability",
    ),
    (LOGITS * 100, 1.5, 0, 1.0, "Subtract the largest logit first: exp overflows above 88"),
    *((TIES, 1.3, k, 1.0, K_TOKENS) for k in (1, 2, len(TIES), 50)),
    (
        LOGITS,
        1.0,
        0,
        1e-6,
        "The nucleus always holds the likeliest token, and no other if that one reaches top_p",
    ),
    *((EVEN, 1.0, 0, p, "A sum that is exactly top_p reaches it") for p in (0.5, 0.75)),
    (
        EVEN,
        1.0,
        0,
        0.3,
        "The nucleus is the smallest set, so it may keep one of several equal tokens and cut another",
    ),
    (WIDE, 1.0, 0, 0.8, "Sum the probabilities in float32, the dtype of the logits"),
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
                "the logits are multiplied by the temperature. Divide them by it": (LOGITS * t).softmax(-1),
                SORTED: right.sort(descending=True).values,
                "top_k=0 cuts every token. It must turn top-k off": torch.full_like(LOGITS, torch.nan),
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
            "top-k keeps one token too few": chances(LOGITS, 0.8, 2, 1.0),
            ZERO: chances(LOGITS, 0.8, 3, 1.0, cut=0.0),
            SORTED: right.sort(descending=True).values,
            "the probabilities after top-k sum to less than 1. Divide them by their sum": _unscaled(
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
                "the probabilities after top-p sum to less than 1. Divide them by their sum": _unscaled(
                    right, 1.0
                ),
            },
        )
    out = distribution(LOGITS, 1.0, 0, 0.01)
    expect.that(bool((out > 0).any()), "a small top_p cuts every token. The likeliest token must always stay")
    expect.close(out, chances(LOGITS, 1.0, 0, 0.01), "V")


def _unscaled(right: Tensor, temperature: float) -> Tensor:
    return (LOGITS / temperature).softmax(-1) * (right > 0)


@DISTRIBUTION.part("all three, in their order", points=1)
def order(distribution: Answer) -> None:
    # Each mistake needs numbers for which its result differs from that of every other mistake.
    expect.close(
        distribution(LOGITS, 0.5, 7, 0.85),
        chances(LOGITS, 0.5, 7, 0.85),
        "V",
        mistakes={
            TOO_SMALL: chances(LOGITS, 0.5, 7, 0.85, extra=-1),
            TOO_LARGE: chances(LOGITS, 0.5, 7, 0.85, extra=1),
            "the temperature comes first: divide the logits by it before top-k and top-p": chances(
                LOGITS, 0.5, 7, 0.85, late=True
            ),
        },
    )
    expect.close(
        distribution(LOGITS, 2.0, 4, 0.6),
        chances(LOGITS, 2.0, 4, 0.6),
        "V",
        mistakes={
            "top-p counts the probabilities before top-k. It must count those of the tokens that top-k kept, which "
            "sum to 1 again": chances(LOGITS, 2.0, 4, 0.6, of_all=True),
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
            "temperature 0 divides by 0. It must give all probability to the likeliest token": torch.full_like(
                LOGITS, torch.nan
            )
        },
    )
    for logits, t, k, p, rule in EDGES:
        check_row(distribution, logits, t, k, p, rule)


class Language:
    """A model whose next token depends on the whole text. It records the texts that it is called with."""

    vocab_size = 13

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def after(self, ids: Sequence[int]) -> int:
        return sum((i + 2) * (token + 1) for i, token in enumerate(ids)) % self.vocab_size

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Return the logits [T, vocab] of token ids [T], as `forward` of the exercise does."""
        text = [int(token) for token in ids]
        self.calls.append(text)
        rows = torch.zeros(len(text), self.vocab_size)
        for t in range(len(text)):
            rows[t, self.after(text[: t + 1])] = 1.0
        return rows

    def text(self, prompt: Sequence[int], length: int) -> list[int]:
        """Return the right continuation of `prompt`, `length` tokens."""
        ids = list(prompt)
        for _ in range(length):
            ids.append(self.after(ids))
        return ids[len(prompt) :]


class Draws:
    """A `sample` that does not always return the likeliest token, and counts its calls."""

    def __init__(self, every: int = 0) -> None:
        self.every, self.number = every, 0

    def __call__(self, row: Tensor) -> int:
        """Return a token for a row of logits [vocab]. Raises ValueError for another shape."""
        if row.dim() != 1:
            raise ValueError(
                f"sample takes one row of logits [vocab], but it got the shape {list(row.shape)}"
            )
        self.number += 1
        off = 1 if self.every and self.number % self.every == 0 else 0
        return (int(row.argmax()) + off) % len(row)


def likeliest(row: Tensor) -> int:
    return Draws()(row)


PROMPT = [9, 5, 2]
NEVER = 99  # an end token that does not come
GOES_ON = "the function goes on after the end token"


@GENERATE.part("the text goes on", points=2)
def continuation(generate: Answer) -> None:
    language = Language()
    right, first = language.text(PROMPT, 5), language.after(PROMPT[:1])
    out = generate(language, list(PROMPT), likeliest, 5, NEVER)
    expect.something(out)
    expect.that(
        isinstance(out, list), f"the result is a {type(out).__name__}; it should be a list of token ids"
    )
    calls = language.calls
    expect.that(out[: len(PROMPT)] != PROMPT, "the result begins with the prompt. Return only the new tokens")
    expect.that(
        calls[1:2] != [PROMPT],
        "forward gets the same text at every step. Append each new token to the text before the next call",
    )
    expect.that(
        all(len(call) >= len(PROMPT) for call in calls),
        "forward gets only the newest token. It remembers no earlier call, so give it the whole text",
    )
    expect.that(
        out[:1] != [first],
        "sample gets row 0, which predicts the token after the first one. Give it the last row",
    )
    expect.that(len(out) <= 5, f"max_tokens=5, but the result has {len(out)} tokens")
    expect.equal(out, right)
    expect.that(
        generate(Language(), list(PROMPT), likeliest, 5, NEVER) == right,
        "a second call with the same prompt gives another result. Begin each call with a new list",
    )


@GENERATE.part("the end token ends it", points=1)
def end(generate: Answer) -> None:
    right = Language().text(PROMPT, 4)  # ends with 1, which has not come before
    out = generate(Language(), list(PROMPT), likeliest, 8, right[-1])
    expect.something(out)
    expect.that(
        out != right[:-1],
        "the result comes without the end token. Return it as the last token, so that the caller sees that the "
        "text ended",
    )
    expect.that(out[: len(right)] != right or len(out) == len(right), GOES_ON)
    expect.equal(out, right)


@GENERATE.part("an end token in the prompt does not", points=1)
def end_in_prompt(generate: Answer) -> None:
    prompt = [0, *PROMPT]
    out = generate(Language(), list(prompt), likeliest, 3, 0)
    expect.that(out != [], "an end token in the prompt stops the loop. Only a new end token ends the text")
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
        expect.that(len(out) <= max_tokens, f"max_tokens={max_tokens}, but the result has {len(out)} tokens")
        expect.that(out[: len(right)] != right or len(out) == len(right), f"{GOES_ON} {eos}")
        for number, what in ((len(asked.calls), "forward passes"), (drawn.number, "draws")):
            expect.that(
                out != right or number == len(right),
                f"{number} {what} for {len(right)} tokens. One per token is enough, and each one costs time",
            )
        expect.that(
            out == right or drawn.number >= len(right),
            "the result has tokens that `sample` did not draw from the last row of their text",
        )
        expect.equal(out, right, name)

"""Chapter 06, eight bits: its exercises' checks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch06 import QUANTISE_ROWS, SMOOTH_SCALES, W8A8_LINEAR

STEPS = 127.5  # from 0 to the largest number of a row
WRAPS = (
    "a number wraps around: {0} / scale is {1:.1f}, which rounds to 128, and int8 has no 128. Cut with clamp "
    "before the conversion"
)

# --- 06.1 quantise_rows ---


def scales_of(weight: Tensor) -> Tensor:
    return weight.abs().amax(1) / STEPS


def in_steps(weight: Tensor, scale: Tensor) -> Tensor:
    return weight / scale.where(scale != 0, 1.0)[:, None]


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = scales_of(weight)
    return in_steps(weight, scale).round().clamp(-128, 127), scale


def uneven(out: int, columns: int, seed: int = 0) -> Tensor:
    """Return rows of very different sizes. The largest number of a row is negative in some, positive in others."""
    weight = expect.randn(out, columns, seed=seed) * torch.logspace(-3, 1, out)[:, None]
    weight[::2, 1] = -4 * weight[::2].abs().amax(1)
    weight[1::2, 2] = 4 * weight[1::2].abs().amax(1)
    return weight


def two(result: Any) -> tuple[Any, Any]:
    expect.something(result)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise Wrong("it should return two tensors: the numbers [out, in], then the scales [out]")
    return result[0], result[1]


def check_scale(scale: Any, weight: Tensor) -> None:
    right = scales_of(weight)
    largest = weight.abs().amax(1)
    mistakes = {
        "the scale is computed from the whole matrix. Each row has one of its own": (
            weight.abs().max() / STEPS
        ).expand(len(weight)),
        "the scale is the largest |w| for each column. Rows share a scale: take the maximum along axis 1": (
            weight.abs().amax(0)[: len(weight)] / STEPS
        ),
        "the scale ignores the sign: a large negative weight counts too. Take the maximum of |w|": weight.amax(
            1
        )
        / STEPS,
        "the scale covers the range from the smallest to the largest w. That is right with a zero point. A "
        "symmetric grid reaches as far as the largest |w| on both sides": (weight.amax(1) - weight.amin(1))
        / 255,
        "the scale is max |w| / 127.5, not / 127: both halves of the 256 numbers are used": largest / 127,
        "the scale is max |w| / 127.5, not / 128": largest / 128,
        "the grid reaches only half as far as the largest |w|: there are 127.5 steps on each side, 255 in "
        "all": largest / 255,
        "the scale is a number of steps per weight. It should be the width of a step": STEPS / largest,
    }
    expect.tensor(scale, right.shape, "out", torch.float32, "`scale`")
    # By ratios: the rows are of very different sizes.
    given, ones = scale / right, torch.ones_like(right)
    for text, mistaken in mistakes.items():
        if mistaken.shape != right.shape or torch.allclose(mistaken, right, rtol=1e-4, atol=0):
            continue
        if torch.allclose(scale, mistaken, rtol=1e-4, atol=0):
            raise Wrong(text)
    expect.close(given, ones, "out", name="`scale` / the right scale")


def check_numbers(numbers: Any, weight: Tensor) -> None:
    right, scale = rounded(weight)
    steps = in_steps(weight, scale)
    expect.tensor(numbers, weight.shape, "out in", torch.int8, "`numbers`")
    found = numbers.float()
    far = (found - right).abs() > 200
    if far.any():
        i, j = far.nonzero()[0].tolist()
        raise Wrong(WRAPS.format("its row's largest weight", float(steps[i, j])))
    mistakes = {
        "the fraction is cut off toward 0. Round to the nearest integer": steps.trunc().clamp(-128, 127),
        "the numbers are rounded down. Round to the nearest integer": steps.floor().clamp(-128, 127),
    }
    for text, mistaken in mistakes.items():
        if torch.equal(found, mistaken) and not torch.equal(mistaken, right):
            raise Wrong(text)
    off = (found - steps.clamp(-128, 127)).abs() > 0.5 + 1e-3
    expect.that(
        not off.any(),
        f"`numbers` is wrong in {int(off.sum())} of {off.numel()} places: they are not the nearest to w / scale",
    )


@QUANTISE_ROWS.part("one scale per row", points=2)
def rows_scales(quantise_rows: Answer) -> None:
    for out, columns in ((6, 6), (5, 33), (1, 8)):
        weight = uneven(out, columns)
        _, scale = two(quantise_rows(weight))
        check_scale(scale, weight)


@QUANTISE_ROWS.part("the numbers", points=2)
def rows_numbers(quantise_rows: Answer) -> None:
    for out, columns in ((6, 6), (5, 33), (64, 256)):
        weight = uneven(out, columns, seed=1)
        numbers, scale = two(quantise_rows(weight))
        check_scale(scale, weight)
        check_numbers(numbers, weight)


@QUANTISE_ROWS.part("a row of zeros", points=1)
def rows_zeros(quantise_rows: Answer) -> None:
    weight = uneven(4, 6)
    weight[2] = 0
    numbers, scale = two(quantise_rows(weight))
    expect.tensor(scale, [4], "out", torch.float32, "`scale`")
    expect.tensor(numbers, [4, 6], "out in", torch.int8, "`numbers`")
    expect.that(
        bool(scale.isfinite().all()),
        "the scale of a row of zeros is not finite, and 0 times it is NaN. Any finite scale is right",
    )
    expect.that(
        not numbers[2].any(), f"the numbers of a row of zeros are {numbers[2].tolist()}; they should be 0"
    )
    check_numbers(numbers[[0, 1, 3]], weight[[0, 1, 3]])


# --- 06.2 w8a8_linear ---

Numbers = tuple[Tensor, Tensor, Tensor]


def w8a8(x: Tensor, q_w: Tensor, s_w: Tensor, s_x: Tensor | None = None) -> Tensor:
    """Return the product, with float64 sums; `s_x` [T] replaces the tokens' own scales."""
    s_x = scales_of(x) if s_x is None else s_x
    q_x = in_steps(x, s_x).round().clamp(-128, 127)
    return ((q_x.double() @ q_w.double().T) * s_x[:, None].double() * s_w.double()).float()


def operands(tokens: int, columns: int, out: int, seed: int = 0) -> Numbers:
    """Return x, q_w and s_w. The largest number of every second token is negative, in column 0.

    Such a number is 127.5 steps from 0, and two right answers may round it differently. So column 0 of q_w is 0.
    """
    x = expect.randn(tokens, columns, seed=seed) * torch.logspace(0, 1, tokens)[:, None]
    x[::2, 0] = -3 * x[::2].abs().amax(1)
    x[1::2, 1] = 3 * x[1::2].abs().amax(1)
    q_w, s_w = rounded(expect.randn(out, columns, seed=seed + 1))
    q_w[:, 0] = 0
    return x, q_w.to(torch.int8), s_w * torch.logspace(0, 0.5, out)


def linear_mistakes(x: Tensor, q_w: Tensor, s_w: Tensor) -> dict[str, Tensor]:
    """Return the results of known mistakes, those that differ from the right one in shape left out."""
    s_x, right = scales_of(x), w8a8(x, q_w, s_w)
    steps = in_steps(x, s_x)
    q_x = steps.round().clamp(-128, 127)
    column = scales_of(x.T)

    def scaled(sums: Tensor) -> Tensor:
        return sums.float() * s_x[:, None] * s_w

    def times(numbers: Tensor) -> Tensor:
        return scaled(numbers.double() @ q_w.double().T)

    def with_scale(scale: Tensor) -> Tensor:
        return w8a8(x, q_w, s_w, scale.expand(len(x)))

    sums = q_x.double() @ q_w.double().T
    by_127 = (x / (s_x * STEPS / 127)[:, None]).round().clamp(-127, 127)
    signed = (x.amax(1) / STEPS).clamp_min(1e-12)
    mistakes = {
        "one scale for all tokens: a token with large numbers makes the steps of the others too wide. Each "
        "token has a scale of its own": with_scale(x.abs().max() / STEPS),
        "one scale for all tokens, that of the first. Each token has a scale of its own": with_scale(s_x[0]),
        "x has a scale for each channel. Such scales differ inside a sum, so they cannot be multiplied after "
        "it. Take one for each token": (
            (in_steps(x.T, column).T.round().clamp(-128, 127) * column) @ q_w.float().T
        )
        * s_w,
        "x is not quantised: it is multiplied as floats. That is W8A16": (x.double() @ q_w.double().T).float()
        * s_w,
        "the scale of the token is missing": (sums * s_w).float(),
        "the scale of the weight's row is missing": (sums * s_x[:, None]).float(),
        "the numbers of x are cut off toward 0. Round to the nearest": times(steps.trunc().clamp(-128, 127)),
        "a number wraps around: 127.5 rounds to 128, and int8 has no 128. Cut with clamp before the "
        "conversion": times(steps.round().to(torch.int8)),
        "the scale ignores the sign: a large negative number counts too. Take the maximum of |x|": w8a8(
            x, q_w, s_w, signed
        ),
        "the scale of a token is max |x| / 127.5, not / 127": (
            (by_127.double() @ q_w.double().T) * (s_x * STEPS / 127)[:, None] * s_w
        ).float(),
        "the sums overflow: they are in int8, and a single product can be 16,384": scaled(
            q_x.to(torch.int8) @ q_w.T
        ),
        "the sums overflow: they are in int16, and two products can be 32,768": scaled(
            q_x.to(torch.int16) @ q_w.to(torch.int16).T
        ),
    }
    if len(x) == len(q_w):
        mistakes[
            "the scales are exchanged: row t of the result belongs to token t, so its scale is s_x[t]"
        ] = (sums * s_x * s_w[:, None]).float()
    if q_w.shape[0] == q_w.shape[1]:
        mistakes["q_w is not transposed: each of its rows belongs to one output"] = scaled(
            q_x.double() @ q_w.double()
        )
    return expect.seen(mistakes, right)


def check_linear(linear: Answer, x: Tensor, q_w: Tensor, s_w: Tensor, name: str) -> None:
    right = w8a8(x, q_w, s_w)

    def why(value: Tensor) -> str:
        near = (value - right).abs().max() < 0.05 * right.abs().max()
        return "the sums are not exact. Add the products in a type that holds every sum, such as int32" * near

    expect.close(
        linear(x, q_w, s_w),
        right,
        "T out",
        mistakes=linear_mistakes(x, q_w, s_w),
        name=name,
        why=why,
        tolerance=1e-4,
    )


@W8A8_LINEAR.part("tokens of one size", points=2)
def linear_plain(linear: Answer) -> None:
    for tokens, columns, out in ((6, 6, 6), (5, 48, 7), (1, 16, 3), (4, 16, 4)):
        x, q_w, s_w = operands(tokens, columns, out)
        check_linear(linear, x / x.abs().amax(1, keepdim=True), q_w, s_w, "the result")


@W8A8_LINEAR.part("each token has a scale of its own", points=2)
def linear_tokens(linear: Answer) -> None:
    x, q_w, s_w = operands(6, 40, 6, seed=3)
    x[4] *= 500
    check_linear(linear, x, q_w, s_w, "the result with one large token")
    alone = torch.cat([linear(token[None], q_w, s_w) for token in x])
    expect.close(alone, w8a8(x, q_w, s_w), "T out", name="the results of each token alone")


@W8A8_LINEAR.part("exact sums", points=2)
def linear_exact(linear: Answer) -> None:
    """Once all products have one sign, so that the sum is large. Once they cancel, so that it is small."""
    columns = 4096
    s_w = torch.tensor([0.1, 0.2, 0.3, 0.4])
    same_sign = torch.full((4, columns), 127, dtype=torch.int8)
    cancels = same_sign.clone()
    cancels[:, ::2] = -127
    cancels[:, :8] = torch.arange(32, dtype=torch.int8).view(4, 8)
    for q_w in (same_sign, cancels):
        check_linear(linear, torch.ones(3, columns), q_w, s_w, "the result of 4,096 products")


@W8A8_LINEAR.part("a token of zeros", points=1)
def linear_zeros(linear: Answer) -> None:
    x, q_w, s_w = operands(4, 12, 5, seed=5)
    x[2] = 0
    result = linear(x, q_w, s_w)
    expect.tensor(result, [4, 5], "T out", torch.float32)
    expect.that(
        bool(result[2].isfinite().all()), "a token of zeros gives NaN: its scale is 0, and 0 / 0 is NaN"
    )
    check_linear(linear, x, q_w, s_w, "the result")


# --- 06.3 smooth_scales ---


def smooth(x: Tensor, weight: Tensor, alpha: float = 0.5) -> Tensor:
    x_max, w_max = x.abs().amax(0), weight.abs().amax(0)
    dead = (x_max == 0) | (w_max == 0)
    return (x_max**alpha / w_max ** (1 - alpha)).masked_fill(dead, 1.0)


def of_maxima(x_max: Tensor, w_max: Tensor, alpha: float) -> Tensor:
    return x_max.clamp_min(1e-5) ** alpha / w_max.clamp_min(1e-9) ** (1 - alpha)


def maxima(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return x.abs().amax(0), weight.abs().amax(0)


SMOOTH_MISTAKES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "the scales are upside down: x is divided by s, so a large x needs a large s": (
        lambda x, w, a: 1 / smooth(x, w, a)
    ),
    "the exponents are exchanged: alpha belongs to x, and 1 - alpha to the weight": (
        lambda x, w, a: smooth(x, w, 1 - a)
    ),
    "`alpha` is not used: the result is that of 0.5": lambda x, w, a: smooth(x, w, 0.5),
    "both have the exponent alpha. The weight's is 1 - alpha": lambda x, w, a: of_maxima(
        maxima(x, w)[0], maxima(x, w)[1] ** (a / (1 - a)), a
    ),
    "it uses the mean of |x|. SmoothQuant uses the largest |x|: the largest decides the steps": (
        lambda x, w, a: of_maxima(x.abs().mean(0), maxima(x, w)[1], a)
    ),
    "the maximum of x ignores the sign: a large negative number counts too": lambda x, w, a: of_maxima(
        x.amax(0), maxima(x, w)[1], a
    ),
    "the maximum of the weight ignores the sign: a large negative number counts too": (
        lambda x, w, a: maxima(x, w)[0] ** a / w.amax(0).clamp_min(1e-5) ** (1 - a)
    ),
    "it takes the largest of the rows of the weight. A channel is a column": lambda x, w, a: of_maxima(
        maxima(x, w)[0], w.abs().amax(1) if w.shape[0] == w.shape[1] else maxima(x, w)[1], a
    ),
    "it takes the largest of the whole weight. Each channel has one of its own": lambda x, w, a: of_maxima(
        maxima(x, w)[0], w.abs().max().expand(w.shape[1]), a
    ),
    "the weight is not used. A channel whose weights are large already can take less": lambda x, w, a: (
        maxima(x, w)[0] ** a
    ),
    "the scales are normalised. Here the formula is used as it is": lambda x, w, a: (
        smooth(x, w, a) / (smooth(x, w, a).max() * smooth(x, w, a).min()).sqrt()
    ),
}


def tokens_and_weight(tokens: int, columns: int, out: int, seed: int) -> tuple[Tensor, Tensor]:
    x = expect.randn(tokens, columns, seed=seed)
    x[:, 1] *= 40
    x[0, 2] = -30
    weight = expect.randn(out, columns, seed=seed + 1) * torch.logspace(-1, 0, columns)
    weight[0, 0] = -9
    return x, weight


@SMOOTH_SCALES.part("the formula at alpha 0.5 and others", points=3)
def smooth_formula(smooth_scales: Answer) -> None:
    cases = []
    for number, (tokens, columns, out) in enumerate(((8, 6, 6), (20, 9, 5), (3, 16, 16))):
        x, weight = tokens_and_weight(tokens, columns, out, seed=number)
        cases += [(x, weight, alpha) for alpha in (0.8, 0.5, 0.25)]
    expect.cases(smooth_scales, smooth, cases, axes="in", mistakes=SMOOTH_MISTAKES, tolerance=1e-4)
    x, weight, _ = cases[0]
    expect.close(smooth_scales(x, weight), smooth(x, weight), "in", name="the result without an alpha")


@SMOOTH_SCALES.part("channels with nothing to move", points=1)
def smooth_dead(smooth_scales: Answer) -> None:
    x, weight = tokens_and_weight(6, 8, 5, seed=7)
    x[:, 4], weight[:, 6] = 0, 0
    result = smooth_scales(x, weight, 0.5)
    expect.tensor(result, [8], "in", torch.float32)
    for channel, what in ((4, "x is 0"), (6, "the weight is 0")):
        expect.that(
            float(result[channel]) == 1,
            f"channel {channel}, in which {what} everywhere, has the scale {float(result[channel]):.3g}. There is "
            "nothing to move, so the scale is 1",
        )
    expect.close(result, smooth(x, weight), "in")


@SMOOTH_SCALES.part("the product stays, and both sides share the range", points=1)
def smooth_use(smooth_scales: Answer) -> None:
    x, weight = tokens_and_weight(16, 12, 10, seed=9)
    s = smooth_scales(x, weight, 0.5)
    expect.tensor(s, [12], "in", torch.float32)
    expect.that(bool((s > 0).all()), "a scale is not positive")
    expect.close((x / s) @ (weight * s).T, x @ weight.T, "T out", name="(x / s)(W s)^T", tolerance=1e-3)
    expect.close(
        (x / s).abs().amax(0),
        (weight * s).abs().amax(0),
        "in",
        name="the maxima of x / s, next to those of W s,",
        tolerance=1e-3,
    )

"""Chapter 07, four bits: its exercises' checks."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from minillm.course import expect
from minillm.course.answer import Answer
from minillm.course.exercise import Wrong
from minillm.course.exercises.ch07 import AWQ_SCALES, GPTQ, INT8_CACHE, WORDS
from minillm.quantization.absmax import fake_quantise


def tensors_of(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in an object's attributes, also those in lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from tensors_of(entry)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))
    elif hasattr(value, "__dict__"):
        yield from tensors_of(vars(value))


def bytes_of(value: Any) -> int:
    """Return the bytes of an object's tensors. Memory that several share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors_of(value)}
    return sum(storage.nbytes() for storage in storages.values())


# --- 07.1 Words ---

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def some_numbers(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randint(
        0, 16, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def right_words(numbers: Tensor, order: list[int] | None = None) -> Tensor:
    """Return the words int32 [out, ceil(in / 8)]; place i of a word has its number `order[i]`."""
    padded = torch.nn.functional.pad(numbers.long(), (0, -numbers.shape[1] % 8)).unflatten(1, (-1, 8))
    total = (padded[..., order or list(range(8))] << 4 * torch.arange(8)).sum(-1)
    return torch.where(total >= 2**31, total - 2**32, total).int()


def words_in(packed: Any) -> Tensor:
    words = getattr(packed, "words", None)
    if not isinstance(words, Tensor):
        raise Wrong("`words` is missing: __init__ must set self.words to a tensor int32 [out, ceil(in / 8)]")
    return words


@WORDS.part("eight numbers in a word", points=2)
def words_packed(make: Answer) -> None:
    numbers = some_numbers(3, 24)
    words = words_in(make(numbers))
    expect.that(
        words.shape != numbers.shape,
        "`words` has one number in each entry. Eight numbers share one of the words of 32 bits",
    )
    right = right_words(numbers)
    total = torch.where(right < 0, right.long() + 2**32, right.long())
    mistakes = {
        "the first number is in the highest bits. It belongs into the lowest ones": right_words(
            numbers, list(range(7, -1, -1))
        ),
        "the numbers of a word are in another order: AutoAWQ's. Place i has number i": right_words(
            numbers, AWQ_ORDER
        ),
        "words whose last number is above 7 are cut to the largest int32. Their sign bit is set, so they are negative "
        "as int32": total.clamp(max=2**31 - 1).int(),
    }
    expect.close(words, right, "out word", mistakes=mistakes, name="words")


@WORDS.part("the same numbers come out, of any row", points=2)
def words_unpacked(make: Answer) -> None:
    for columns in (16, 8, 11, 3, 1):
        numbers = some_numbers(5, columns, columns)
        packed = make(numbers)
        words, needed = words_in(packed), -(-columns // 8)
        expect.that(
            words.shape[1] == needed,
            f"{columns} numbers, which is not a multiple of 8, need {needed} words per row; there are {words.shape[1]}",
        )
        out = packed.numbers()
        expect.something(out, "what numbers() returns")
        expect.tensor(out, out.shape, "out in", name="what numbers() returns")
        expect.that(
            out.shape[1] <= columns,
            f"numbers() returns {out.shape[1]} columns of {columns}. The padding is no number",
        )
        high = right_words(numbers)[..., None] >> (4 * torch.arange(8))
        mistakes = {
            "what numbers() returns is not masked: after the shift, keep the four lowest bits": high.flatten(
                1
            )[:, :columns]
        }
        expect.close(
            out.long(),
            numbers.long(),
            "out in",
            mistakes=expect.seen({text: wrong.long() for text, wrong in mistakes.items()}, numbers.long()),
            name="what numbers() returns",
        )
        expect.that(
            bytes_of(packed) <= 4 * words.numel() + 64,
            f"the object holds tensors of {bytes_of(packed)} bytes in all; its words need {4 * words.numel()}. Keep "
            "the words only",
        )


@WORDS.part("weights, with the scale of each group", points=2)
def words_weights(make: Answer) -> None:
    for columns, groups in ((16, 2), (24, 3), (10, 5), (8, 1)):
        numbers, scale = some_numbers(4, columns, groups), expect.randn(4, groups, seed=2).abs() + 0.1
        q, size = numbers.float(), columns // groups
        spread = scale.repeat_interleave(size, 1)
        right = (q - 8) * spread
        mistakes = {
            "the weights are q * scale. Subtract the zero, 8, from each number": q * spread,
            "8 is subtracted after the scale. Subtract it before you multiply": q * spread - 8,
            "all columns have the scale of the first group": (q - 8) * scale[:, :1],
            "column j has the scale of group j % groups. A group is `size` neighbouring columns": (q - 8)
            * scale.repeat(1, size),
        }
        found = make(numbers).weights(scale)
        expect.close(
            found, right, "out in", mistakes=expect.seen(mistakes, right), name="what weights() returns"
        )


# --- 07.2 gptq ---

Push = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]


def layer(rows: int, columns: int, groups: int, seed: int, bits: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight, a Hessian of inputs that are alike, and the scales [out, groups] that just cover the weight."""
    weight = expect.randn(rows, columns, seed=seed)
    mix = torch.eye(columns) + 0.8 * columns**-0.5 * expect.randn(columns, columns, seed=seed + 2)
    x = expect.randn(6 * columns, columns, seed=seed + 1) @ mix
    # A little wider than the weight, so that no weight lies in the middle between two numbers.
    scale = weight.unflatten(1, (groups, -1)).abs().amax(-1) / ((2**bits - 1.07) / 2)
    return weight, 2 / len(x) * x.T @ x, scale


def prepared(
    weight: Tensor, hessian: Tensor, damping: float, dead: bool = True, absolute: bool = False
) -> tuple[Tensor, Tensor]:
    w, h = weight.double().clone(), hessian.double().clone()
    unused = h.diagonal() == 0
    if dead:
        h += unused.double().diag()
        w[:, unused] = 0
    return w, h + damping * (1 if absolute else h.diagonal().mean()) * torch.eye(len(h), dtype=h.dtype)


def upper(h: Tensor) -> Tensor:
    factor: Tensor = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    return factor


def push(w: Tensor, weight: Tensor, value: Tensor, U: Tensor, j: int) -> Tensor:
    """Return what is subtracted from all columns."""
    return torch.outer((w[:, j] - value) / U[j, j], U[j])


def near(w: Tensor, s: Tensor, bits: int) -> Tensor:
    half = 2 ** (bits - 1)
    value: Tensor = (w / s).round().clamp(-half, half - 1) * s
    return value


def right_gptq(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    bits: int = 4,
    damping: float = 0.01,
    *,
    start: Callable[..., tuple[Tensor, Tensor]] = prepared,
    factor: Callable[[Tensor], Tensor] = upper,
    rolls: Push = push,
    rounds: Callable[[Tensor, Tensor, int], Tensor] = near,
    block: int = 10_000,
) -> Tensor:
    """Return GPTQ's values. The keywords replace one step each, for mistakes."""
    w, h = start(weight, hessian, damping)
    U, size = factor(h), weight.shape[1] // scale.shape[1]
    for j in range(weight.shape[1]):
        value = rounds(w[:, j], scale[:, j // size].double(), bits)
        end = min(weight.shape[1], (j // block + 1) * block)
        w[:, j + 1 : end] -= rolls(w, weight.double(), value, U, j)[:, j + 1 : end]
        w[:, j] = value
    return w.float()


def check_gptq(gptq: Answer, case: tuple[Any, ...], mistakes: Mapping[str, Callable[..., Tensor]]) -> None:
    right = right_gptq(*case)
    wrong = expect.seen({text: make(*case) for text, make in mistakes.items()}, right)
    expect.close(gptq(*case), right, "out in", mistakes=wrong)


def all_first(weight: Tensor, hessian: Tensor, scale: Tensor, *rest: Any) -> Tensor:
    return right_gptq(weight, hessian, scale[:, :1].expand_as(scale), *rest)


def unlimited(w: Tensor, s: Tensor, bits: int) -> Tensor:
    return (w / s).round() * s


def without_the_lowest(w: Tensor, s: Tensor, bits: int) -> Tensor:
    return (w / s).round().clamp(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) * s


GRID_MISTAKES: dict[str, Callable[..., Tensor]] = {
    "values are beyond the grid. With 4 bits, the numbers are -8 to 7": partial(right_gptq, rounds=unlimited),
    "the lowest number of the grid is never used. With 4 bits, the numbers are -8 to 7": partial(
        right_gptq, rounds=without_the_lowest
    ),
    "all columns are rounded with the first scale. A column has the scale of its own group": all_first,
}


@GPTQ.part("values of the grid", points=1)
def gptq_grid(gptq: Answer) -> None:
    weight, _, scale = layer(5, 12, 3, seed=0)
    case = (1.3 * weight, torch.eye(12), scale)

    def in_numbers(weight: Tensor, hessian: Tensor, scale: Tensor) -> Tensor:
        return right_gptq(weight, hessian, scale) / scale.repeat_interleave(4, 1)

    message = "the result has the numbers, not multiplied by the scale. Return the values"
    check_gptq(gptq, case, {**GRID_MISTAKES, message: in_numbers})
    weight, _, scale = layer(4, 8, 2, seed=4, bits=3)

    def four(weight: Tensor, hessian: Tensor, scale: Tensor, bits: int) -> Tensor:
        return right_gptq(weight, hessian, scale)

    message = "with bits=3 the numbers are -4 to 3. The argument `bits` has no effect"
    check_gptq(gptq, (2 * weight, torch.eye(8), scale, 3), {message: four})


def undamped(weight: Tensor, hessian: Tensor, scale: Tensor, bits: int = 4, damping: float = 0.01) -> Tensor:
    return right_gptq(weight, hessian, scale, bits, 0.0)


DAMPING_MISTAKES: dict[str, Callable[..., Tensor]] = {
    "H is not damped. Add damping times the mean of its diagonal to the diagonal": undamped,
    "`damping` itself is added to the diagonal. For a Hessian that is 1000 times as large, it would be nothing: "
    "multiply it by the mean of the diagonal": partial(right_gptq, start=partial(prepared, absolute=True)),
}
ROLL_MISTAKES: dict[str, Callable[..., Tensor]] = {
    "this is rounding to nearest. Each error must change the later columns before they are rounded": partial(
        right_gptq, rolls=lambda w, weight, value, U, j: torch.zeros_like(w)
    ),
    "the later columns move by the error times U[j, k]. Before, divide the error by U[j, j]": partial(
        right_gptq, rolls=lambda w, weight, value, U, j: torch.outer(w[:, j] - value, U[j])
    ),
    "the later columns move away from what would make up for the error. The sign is wrong": partial(
        right_gptq, rolls=lambda *args: -push(*args)
    ),
    "U U^T is the inverse of H, but U^T U must be. Invert H first, then take the upper Cholesky factor": partial(
        right_gptq, factor=lambda h: torch.linalg.inv(torch.linalg.cholesky(h)).T
    ),
    "U is the factor of H itself. It must be that of the inverse of H": partial(
        right_gptq, factor=lambda h: torch.linalg.cholesky(h, upper=True)
    ),
    "the rows of the inverse itself are used. After the first column, they do not know that columns are fixed: use "
    "those of its Cholesky factor": partial(right_gptq, factor=torch.linalg.inv),
    "the error is measured against the original weight. Part of it has been made up for already: measure against the "
    "column before rounding": partial(
        right_gptq, rolls=lambda w, weight, value, U, j: torch.outer((weight[:, j] - value) / U[j, j], U[j])
    ),
}


def stops(block: int) -> Callable[..., Tensor]:
    return partial(right_gptq, block=block)


@GPTQ.part("errors roll to all later columns", points=3)
def gptq_rolls(gptq: Answer) -> None:
    blocks = {
        f"errors stop at the end of each {block} columns. They must reach all later columns": stops(block)
        for block in (2, 4, 8, 16, 32, 64, 128)
    }
    for rows, columns, groups, seed in ((6, 16, 2, 10), (5, 24, 3, 20), (3, 160, 5, 30)):
        case = (*layer(rows, columns, groups, seed), 4, 0.3 if rows == 6 else 0.01)
        check_gptq(gptq, case, {**ROLL_MISTAKES, **GRID_MISTAKES, **blocks, **DAMPING_MISTAKES})


@GPTQ.part("damping", points=1)
def gptq_damping(gptq: Answer) -> None:
    weight, hessian, scale = layer(6, 16, 2, seed=40)
    for size in (1.0, 1000.0):
        check_gptq(gptq, (weight, size * hessian, scale, 4, 0.3), DAMPING_MISTAKES)
    x = expect.randn(3, 16, seed=41)  # three tokens cannot tell 16 columns apart
    check_gptq(gptq, (weight, x.T @ x, scale, 4, 0.01), {})


@GPTQ.part("columns whose inputs are always 0", points=2)
def gptq_dead(gptq: Answer) -> None:
    weight, hessian, scale = layer(6, 16, 2, seed=50)
    for dead in ([3, 9], [15], list(range(16))):
        h = hessian.clone()
        h[dead], h[:, dead] = 0, 0
        kept = "columns whose inputs are always 0 keep a weight. Set them to 0, and their diagonal of H to 1"
        mistakes = {kept: partial(right_gptq, start=partial(prepared, dead=False))} if len(dead) < 16 else {}
        check_gptq(gptq, (weight, h, scale), mistakes)


# --- 07.3 awq_scales ---

Statistic = Callable[[Tensor, Tensor], Tensor]  # (weight, x) -> [in]


def mean_input(weight: Tensor, x: Tensor) -> Tensor:
    return x.abs().mean(0)


def scales_at(alpha: float, size: Tensor, normalise: bool = True) -> Tensor:
    s = (size**alpha).clamp(min=1e-4)
    return s / (s.max() * s.min()).sqrt() if normalise else s


def rounded_with(s: Tensor, weight: Tensor, bits: int, group: int) -> Tensor:
    return fake_quantise(weight * s, bits, group) / s


def output_loss(w: Tensor, weight: Tensor, x: Tensor) -> float:
    return float((x.double() @ (w - weight).double().T).square().mean())


def right_scales(
    weight: Tensor,
    x: Tensor,
    bits: int = 4,
    group_size: int = 32,
    *,
    statistic: Statistic = mean_input,
    alphas: range = range(20),
    rounding: Callable[..., Tensor] = rounded_with,
    loss: Callable[..., float] = output_loss,
    normalise: bool = True,
) -> Tensor:
    """Return the best scales. The keywords replace one step each, for mistakes."""
    candidates = [scales_at(r / 20, statistic(weight, x), normalise) for r in alphas]
    return min(candidates, key=lambda s: loss(rounding(s, weight, bits, group_size), weight, x))


AWQ_MISTAKES: dict[str, Callable[..., Tensor]] = {
    "all scales are 1, so nothing is scaled. If you search, take s from the inputs, multiply the weights by s before "
    "rounding, divide them by s afterwards, and keep the smallest error": lambda weight, x, bits, group: (
        torch.ones(weight.shape[1])
    ),
    "these are the scales for alpha = 0.5, without a search": lambda weight, x, bits, group: scales_at(
        0.5, mean_input(weight, x)
    ),
    "the scales come from the largest |x| of each channel. Take the mean |x|": partial(
        right_scales, statistic=lambda weight, x: x.abs().amax(0)
    ),
    "the scales come from the mean of x, in which signs cancel. Take the mean of |x|": partial(
        right_scales, statistic=lambda weight, x: x.mean(0).abs()
    ),
    "the search compares weights. Compare the outputs, x times the matrix": partial(
        right_scales, loss=lambda w, weight, x: float((w - weight).square().mean())
    ),
    "in the search, the rounded weights are not divided by s again": partial(
        right_scales, rounding=lambda s, weight, bits, group: fake_quantise(weight * s, bits, group)
    ),
    "the scales are not normalised. Divide s by the root of its largest times its smallest number": partial(
        right_scales, normalise=False
    ),
    "the result is 1 / s": lambda *case: 1 / right_scales(*case),
    "the search does not use the argument `bits`": lambda weight, x, bits, group: right_scales(
        weight, x, 8, group
    ),
    "the search does not use the argument `group_size`": lambda weight, x, bits, group: right_scales(
        weight, x, bits, -1
    ),
}


def salient(rows: int, columns: int, factor: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return a weight and inputs in which a few channels are `factor` times as large, and their columns as small."""
    weight, x = expect.randn(rows, columns, seed=seed), expect.randn(64, columns, seed=seed + 1)
    size = expect.randn(columns, seed=seed + 2).exp()
    size[[1, columns // 2]] = factor
    return weight / size.sqrt(), (x + 0.2) * size


@AWQ_SCALES.part("the alpha with the smallest error of the outputs", points=4)
def awq_best(awq_scales: Answer) -> None:
    cases = [
        (salient(24, 64, 30.0, seed=9), 4, 32),
        (salient(16, 64, 12.0, seed=36), 3, 16),
        (salient(16, 128, 60.0, seed=51), 4, 64),
    ]
    for (weight, x), bits, group in cases:
        case = (weight, x, bits, group)
        right = right_scales(*case)
        mistakes = expect.seen({text: make(*case) for text, make in AWQ_MISTAKES.items()}, right)
        expect.close(awq_scales(*case), right, "in", mistakes=mistakes, why=partial(another_alpha, case))


def another_alpha(case: tuple[Any, ...], found: Tensor) -> str:
    """Return a sentence for scales that belong to another alpha."""
    weight, x, bits, group = case
    losses = [output_loss(rounded_with(s, weight, bits, group), weight, x) for s in all_scales(weight, x)]
    for r, s in enumerate(all_scales(weight, x)):
        if found.shape == s.shape and bool(torch.allclose(found, s, rtol=1e-4)):
            return (
                f"these are the scales for alpha = {r / 20:.2f}; there is a better alpha, with "
                f"{min(losses) / losses[r]:.2f} times its error. Try 0, 0.05, 0.10, … 0.95"
            )
    return ""


def all_scales(weight: Tensor, x: Tensor) -> list[Tensor]:
    return [scales_at(r / 20, mean_input(weight, x)) for r in range(20)]


@AWQ_SCALES.part("a channel without inputs", points=2)
def awq_empty(awq_scales: Answer) -> None:
    weight, x = salient(24, 64, 30.0, seed=9)
    x[:, [5, 40]] = 0
    case = (weight, x, 4, 32)
    found = awq_scales(*case)
    expect.tensor(found, (64,), "in")
    expect.that(
        bool(found.isfinite().all() and (found > 0).all()),
        "channels 5 and 40 have inputs that are always 0, and their scales are 0, infinite or NaN, or make others so. "
        "Let no scale be below 1e-4 before it is normalised",
    )
    expect.close(found, right_scales(*case), "in", why=partial(another_alpha, case))


# --- 07.4 Int8Cache ---

BLOCKS, BLOCK, HEADS, WIDTH = 6, 4, 3, 16
HALF = 0.51 / 127  # half a step of the grid, as a share of a vector's largest number
Pair = tuple[Tensor, Tensor]  # keys and values [tokens, H, D]


def scale_of(x: Tensor, *axes: int) -> Tensor:
    return x.abs().amax(axes or (-1,), keepdim=True) / 127


def through(x: Tensor, scale: Tensor, read: Tensor | None = None) -> Tensor:
    """Return x [tokens, H, D] after int8 with these scales; `read` are the scales of reading, if they differ."""
    q = (x / scale).round().clamp(-128, 127)
    return q * (scale if read is None else read)


def plain(pair: Pair, change: Callable[[Tensor], Tensor]) -> Pair:
    return change(pair[0]), change(pair[1])


class Cache:
    """The learner's cache, called as an engine calls it."""

    def __init__(self, make: Answer) -> None:
        self.made = make(BLOCKS, BLOCK, HEADS, WIDTH)

    def write(self, pair: Pair, slots: list[int]) -> None:
        self.made.write(pair[0].clone(), pair[1].clone(), torch.tensor(slots))

    def check(self, table: list[int], right: Pair, mistakes: dict[str, Pair]) -> None:
        """Raise Wrong unless the cache reads `right` up to rounding; the first mistake that fits has its message."""
        seq_len = len(right[0])
        result = self.made.read(torch.tensor(table), seq_len)
        if not (isinstance(result, tuple | list) and len(result) == 2):
            raise Wrong(f"read() returns a {type(result).__name__}; it should return the pair (k, v)")
        for name, x in zip("kv", result, strict=True):
            expect.something(x, f"{name} as read")
            if isinstance(x, Tensor) and len(x) > seq_len:
                raise Wrong(
                    f"{name} as read has {len(x)} tokens, and the text seq_len = {seq_len}. Cut off the rest"
                )
            expect.tensor(x, (seq_len, HEADS, WIDTH), "token head D", torch.float32, f"{name} as read")
        k, v = result
        if self._good(k, right[0]) and self._good(v, right[1]):
            return
        for message, (wrong_k, wrong_v) in mistakes.items():
            if bool(
                torch.isclose(k, wrong_k, 1e-3, 1e-4).all() and torch.isclose(v, wrong_v, 1e-3, 1e-4).all()
            ):
                raise Wrong(message)
        for name, x, wanted in zip("kv", result, right, strict=True):
            expect.finite(x, "token head D", f"{name} as read")
            if not self._good(x, wanted):
                off = float(((x - wanted).abs() / wanted.abs().amax(-1, keepdim=True).clamp_min(1e-9)).max())
                raise Wrong(
                    f"{name} as read is off by up to {off:.1%} of the largest number of its token and head; rounding "
                    f"to int8 costs at most {HALF:.1%}"
                )

    @staticmethod
    def _good(x: Tensor, wanted: Tensor) -> bool:
        return bool(((x - wanted).abs() <= HALF * wanted.abs().amax(-1, keepdim=True)).all())


def vectors(tokens: int, seed: int) -> Pair:
    """Return keys and values in which tokens, heads, and K and V differ in size."""
    size = torch.tensor([1.0, 20.0, 3.0])[None, :, None] * (1.0 + 9.0 * torch.arange(tokens))[:, None, None]
    k, v = (size * expect.randn(tokens, HEADS, WIDTH, seed=seed + i) for i in range(2))
    return k, 7 * v.flip(0)


def wrapped(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1, keepdim=True) / 128
    return ((x / scale).round() + 128).remainder(256).sub(128) * scale


@INT8_CACHE.part("what is written is read, in int8", points=2)
def cache_reads(make: Answer) -> None:
    cache, pair, table = Cache(make), vectors(6, seed=0), [2, 1]
    other = vectors(8, seed=5)
    cache.write(other, list(range(8)))
    cache.write(pair, [8, 9, 10, 11, 4, 5])
    memory = plain(other, lambda x: through(x, scale_of(x)))  # blocks 0 and 1, then partly overwritten
    overwritten = [
        torch.cat([m[:4], through(x, scale_of(x))[4:6]]) for m, x in zip(memory, pair, strict=True)
    ]
    keys = scale_of(pair[0])
    cache.check(
        table,
        pair,
        {
            "the numbers of int8 are returned without their scales": plain(
                pair, lambda x: (x / scale_of(x)).round()
            ),
            "numbers are cut, because to(torch.int8) drops the fraction. Round them before": plain(
                pair, lambda x: (x / scale_of(x)).trunc() * scale_of(x)
            ),
            "the largest number of a vector comes back with the other sign: it became 128, and int8 ends at 127": plain(
                pair, wrapped
            ),
            "the scales are rounded to whole numbers. Keep them in float32": plain(
                pair, lambda x: through(x, scale_of(x), scale_of(x).trunc().clamp(-128, 127))
            ),
            "all heads of a token share a scale, and a large head spoils the others. Give each its own": plain(
                pair, lambda x: through(x, scale_of(x, -1, -2))
            ),
            "tokens of the same step share a scale, and a large one spoils the others": plain(
                pair, lambda x: through(x, scale_of(x, -1, -2, -3))
            ),
            "the tokens of a block share a scale, and a large one spoils the others": plain(
                pair, lambda x: torch.cat([through(part, scale_of(part, -1, -2, -3)) for part in x.split(4)])
            ),
            "the values have the keys' scale. Give them their own": (
                through(pair[0], keys),
                (pair[1] / keys).round().clamp(-127, 127) * keys,
            ),
            "the first blocks of the cache are read: the table is not used": (overwritten[0], overwritten[1]),
        },
    )
    most, size = 2 * BLOCKS * BLOCK * HEADS * (WIDTH + 4), bytes_of(cache.made)
    expect.that(
        size <= most + 64,
        f"the cache has {size:,} bytes. In int8, with a float32 scale for each token and head, it has {most:,}",
    )


@INT8_CACHE.part("a slot is written alone", points=2)
def cache_slots(make: Answer) -> None:
    cache, (k, v) = Cache(make), vectors(4, seed=10)
    for token in range(4):  # one step for each token, into block 3
        cache.write((k[token : token + 1], v[token : token + 1]), [12 + token])
    by_head = plain((k, v), lambda x: through(x, scale_of(x), scale_of(x)[-1:]))
    message = "the last write decides the scales of its whole block. Tokens that were written before are read with them"
    cache.check([3], (k, v), {message: by_head})
    k[2], v[2] = 0, 0
    cache.write((k[2:3], v[2:3]), [14])
    zeros = [x[2] for x in cache.made.read(torch.tensor([3]), 4)]
    expect.that(
        all(bool((x == 0).all()) for x in zeros),
        "a vector of zeros is not read as zeros. Write it like any other, and do not divide by its scale, 0",
    )
    cache.check([3], (k, v), {})


@INT8_CACHE.part("a fork gets its own copy", points=2)
def cache_forks(make: Answer) -> None:
    cache, mine, others = Cache(make), vectors(3, seed=20), vectors(3, seed=30)
    cache.write(mine, [4, 5, 6])  # block 1, not full
    cache.write(others, [16, 17, 18])  # block 4, of another request
    cache.made.copy_block(1, 4)
    stale = tuple(through(x, scale_of(x), scale_of(old)) for x, old in zip(mine, others, strict=True))
    new, old = (plain(pair, lambda x: through(x, scale_of(x))) for pair in (mine, others))
    cache.check(
        [4],
        mine,
        {
            "the scales are not copied: the copy is read with those of its old content": (stale[0], stale[1]),
            "the keys are copied, the values are not copied": (new[0], old[1]),
            "the values are copied, the keys are not copied": (old[0], new[1]),
            "nothing has arrived in the target. copy_block(source, target) copies from the first to the second: is "
            "yours the wrong way round?": old,
        },
    )
    further = vectors(1, seed=40)
    cache.write(further, [19])  # the child goes on, in its own block
    whole = torch.cat([mine[0], further[0]]), torch.cat([mine[1], further[1]])
    cache.check([4], whole, {})
    cache.check([1], mine, {})
    cache.write(plain(mine, lambda x: -x), [4, 5, 6])
    cache.check(
        [4], whole, {"after copy_block, a write into the source changes the copy": plain(whole, lambda x: -x)}
    )

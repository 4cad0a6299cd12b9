"""Matrix products with packed weights on a CPU. Their speed depends on the processor, so a measurement chooses.

PyTorch has several products for weights of 8 and 4 bits, and no rule says which is the fastest. `_int_mm` multiplies
integers 2 to 3 times as fast as floats on a processor with VNNI instructions, and 7 times as slowly on one without.
`_weight_int8pack_mm` wins for one row of x, where reading the weights takes the time, and loses to floats for 64 rows.

- int8pack, int4pack    read the packed weight, and x in bfloat16: in float32 they are several times slower
- int_mm                multiplies 8-bit integers and adds them up in int32
- strips                convert some outputs of the weight to floats, multiply, and continue with the next outputs: the
                        converted part stays in the processor's cache
- fetched ...           read the weight in order first. int8pack and int_mm read several rows at once, and a processor
                        does not foresee so many streams: it waits for memory twice as long as for one stream

`MeasuredMatmul` times the products that fit a weight once per process. `benchmarks/quantized_linear.py` compares them.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minillm.cpu import float8, int4pack
from minillm.layer_kv import LARGEST
from minillm.measure.timing import times_of
from minillm.packed import ZERO_OF_INT4, QuantizedWeight

ROWS = (1, 4, 16, 64, 256)  # a choice serves up to so many rows of x; the last one also serves more
STRIP = 512  # outputs that are converted at a time
PART = 2**22  # bytes that are fetched at a time
FLOATS = (torch.float32, torch.bfloat16)  # of x; the definitions compute other types
TINY = torch.finfo(torch.float32).tiny  # a scale of zeros

# The measurement multiplies pieces of weights: at most MAX_IN columns and MAX_NUMBERS numbers, and at least MIN_OUT
# outputs with MAX_PRODUCTS multiplications or fewer.
MAX_IN, MAX_NUMBERS, MIN_OUT, MAX_PRODUCTS = 1024, 3 * 2**18, 32, 2**23
# Each product is called twice, and up to MOST times in SECONDS. From the third call on, only those that took less than
# CLOSE times as long as the fastest one go on.
SECONDS, MOST, CLOSE = 2e-3, 8, 1.5
SLOW = 2.0  # an exact product is slow if one that rounds sums is so many times as fast


class Product(NamedTuple):
    """A way to compute x W^T, and the weights that it can take. `multiply` returns [T, out] in any floating dtype.

    `rounds_sums` marks a product of 8-bit integers that rounds their sums to bfloat16. The next layer may then round an
    activation to another integer, so it is for processors whose exact products are slow.
    """

    name: str
    fits: Callable[[QuantizedWeight], bool]
    multiply: Callable[[Tensor, QuantizedWeight], Tensor]
    rounds_sums: bool = False


class Choice(NamedTuple):
    """The product that was the fastest for weights [size_out, size_in] and up to `rows` rows of x."""

    scheme: str
    size_out: int
    size_in: int
    rows: int
    op: str


def int8pack(x: Tensor, weight: QuantizedWeight, *, fetch: bool = False) -> Tensor:
    x = x.to(torch.bfloat16).contiguous()
    return _row_scales(_by_parts(weight.numbers, partial(_int8pack, x), fetch), weight)


def _int8pack(x: Tensor, numbers: Tensor) -> Tensor:
    ones = torch.ones(len(numbers), dtype=torch.bfloat16)  # its scales would be rounded to bfloat16
    y: Tensor = torch._weight_int8pack_mm(x, numbers.contiguous(), ones)
    return y


def fits_int8pack(weight: QuantizedWeight) -> bool:
    """Return whether `_weight_int8pack_mm` computes this weight. It checks nothing itself.

    It reads the columns in vectors of 16. For other sizes it reads beyond the weight: the process crashes, or the
    result is infinite.
    """
    return weight.scale.shape[1] == 1 and weight.zero is None and weight.shape[1] % 16 == 0


def int4pack_product(x: Tensor, weight: QuantizedWeight) -> Tensor:
    assert isinstance(weight, int4pack.BlockedWeight)
    return weight.matmul(x.to(torch.bfloat16).contiguous())


def strips(x: Tensor, weight: QuantizedWeight, *, dtype: torch.dtype) -> Tensor:
    """Multiply in `dtype` by a few outputs of the weight at a time."""
    x = x.to(dtype)
    y = torch.cat([x @ strip for strip in _strips(weight, dtype)], 1)
    if weight.scale.shape[1] > 1:
        return y
    return _row_scales(y, weight, float8.UNIT if _is_fp8(weight) else 1.0)


def int_mm(x: Tensor, weight: QuantizedWeight, *, fetch: bool = False) -> Tensor:
    numbers, scale = quantise_tokens(x)
    sums = _by_parts(weight.numbers, lambda part: torch._int_mm(numbers, part.t()), fetch)
    return _row_scales(sums * scale, weight)


def of_integers(multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a product in floats with x in 8-bit integers, for W8A8. bfloat16 holds them exactly."""

    def product(x: Tensor, weight: QuantizedWeight, **arguments: Any) -> Tensor:
        numbers, scale = quantise_tokens(x)
        return multiply(numbers, weight, **arguments).mul_(scale)

    return product


def of_fp8(multiply: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a product in floats with each row of x quantised to float8_e4m3fn, as `ops.w8a8_fp8_matmul` defines."""

    def product(x: Tensor, weight: QuantizedWeight, **arguments: Any) -> Tensor:
        x = x.float()
        scale = (x.abs().amax(-1, keepdim=True) / LARGEST[torch.float8_e4m3fn]).clamp_min_(TINY)
        return multiply((x / scale).to(torch.float8_e4m3fn).float(), weight, **arguments).mul_(scale)

    return product


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the integers of `ops.quantise_tokens` [T, in] int8, and the scales [T, 1] float32, in fewer steps."""
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / 127.5).clamp_min_(TINY)
    return (x / scale).round_().clamp_(-128, 127).to(torch.int8), scale


def _row_scales(y: Tensor, weight: QuantizedWeight, unit: float = 1.0) -> Tensor:
    """Return y [T, out] times the one scale of each row of the weight, in float32."""
    scale = weight.scale.float().t()  # [1, out]
    return y.float().mul_(scale if unit == 1.0 else scale * unit)


def _by_parts(numbers: Tensor, multiply: Callable[[Tensor], Tensor], fetch: bool) -> Tensor:
    """Return `multiply(numbers)` [T, out]. With `fetch`, read PART bytes of them into the cache at a time."""
    if not fetch:
        return multiply(numbers)
    products = []
    for part in numbers.split(max(1, PART // numbers.shape[1])):
        part.flatten().view(torch.int64).amax()
        products.append(multiply(part))
    return products[0] if len(products) == 1 else torch.cat(products, 1)


def _fits_fetched(weight: QuantizedWeight) -> bool:
    return weight.shape[1] % 8 == 0  # whole int64


def _always(_: QuantizedWeight) -> bool:
    return True


def _both(
    name: str, fits: Callable[[QuantizedWeight], bool], multiply: Callable[..., Tensor]
) -> tuple[Product, Product]:
    """Return a product as it is, and fetched."""
    return (
        Product(name, fits, multiply),
        Product(f"fetched {name}", lambda w: fits(w) and _fits_fetched(w), partial(multiply, fetch=True)),
    )


def _in_strips(multiply: Callable[..., Tensor], *dtypes: torch.dtype) -> tuple[Product, ...]:
    return tuple(
        Product(f"strips in {str(dtype).removeprefix('torch.')}", _always, partial(multiply, dtype=dtype))
        for dtype in dtypes
    )


PRODUCTS: dict[str, tuple[Product, ...]] = {
    "int8": (*_both("int8pack", fits_int8pack, int8pack), *_in_strips(strips, *FLOATS)),
    "int4": (
        Product("int4pack", lambda weight: isinstance(weight, int4pack.BlockedWeight), int4pack_product),
        *_in_strips(strips, *FLOATS),
    ),
    "fp8": _in_strips(strips, *FLOATS),
    "w8a8": (
        *_both("int_mm", _always, int_mm),
        *(p._replace(rounds_sums=True) for p in _both("int8pack", fits_int8pack, of_integers(int8pack))),
        *_in_strips(of_integers(strips), torch.float32),
    ),
    "w8a8_fp8": _in_strips(of_fp8(strips), torch.float32),
}


def _strips(weight: QuantizedWeight, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the weight in `dtype` as matrices [in, n], n = STRIP outputs at a time.

    Scales of whole rows are left out, and float8_e4m3fn numbers are `float8.UNIT` times too small.
    """
    for start in range(0, weight.shape[0], STRIP):
        outputs = slice(start, start + STRIP)
        strip = _numbers(weight, outputs, dtype)  # [in, n]
        groups = strip.unflatten(0, (weight.scale.shape[1], -1))  # [groups, group_size, n]
        if weight.zero is not None:
            groups.sub_(_of_groups(weight.zero, outputs, dtype))
        elif weight.bits == 4:
            groups.sub_(ZERO_OF_INT4)
        if weight.scale.shape[1] > 1:
            groups.mul_(_of_groups(weight.scale, outputs, dtype))
        yield strip


def _numbers(weight: QuantizedWeight, outputs: slice, dtype: torch.dtype) -> Tensor:
    """Return the numbers of some outputs, [in, n] in `dtype`."""
    if isinstance(weight, int4pack.BlockedWeight):
        return weight.columns(outputs).to(dtype)
    part = replace(weight, numbers=weight.numbers[outputs], scale=weight.scale[outputs], zero=None)
    if part.numbers.dtype == torch.float8_e4m3fn:
        return float8.scaled_down(part.numbers).float().to(dtype).t()
    return part.unpacked().to(dtype).t()


def _of_groups(values: Tensor, outputs: slice, dtype: torch.dtype) -> Tensor:
    """Return scales or zeros [out, groups] of some outputs, as [groups, 1, n]."""
    return values[outputs].t().to(dtype, copy=True, memory_format=torch.contiguous_format)[:, None]


class Kind(NamedTuple):
    """All of a product and its weight that its speed depends on."""

    scheme: str
    blocked: bool
    size_out: int
    size_in: int
    num_groups: int
    asymmetric: bool
    dtype: torch.dtype  # of x
    num_threads: int

    @classmethod
    def of(cls, scheme: str, weight: QuantizedWeight, dtype: torch.dtype) -> "Kind":
        return cls(
            scheme,
            isinstance(weight, int4pack.BlockedWeight),
            *weight.shape,
            weight.scale.shape[1],
            weight.zero is not None,
            dtype,
            torch.get_num_threads(),
        )

    def part(self, rows: int) -> "Kind":
        """Return the kind of a smaller weight that is measured in place of the whole."""
        group_size = self.size_in // self.num_groups
        size_in, num_groups = self.size_in, self.num_groups
        if size_in > MAX_IN and num_groups > 1:
            num_groups = max(1, MAX_IN // group_size)
            size_in = num_groups * group_size
        elif size_in > MAX_IN:
            size_in = MAX_IN + size_in % 16  # int8pack needs a multiple of 16
        most = min(MAX_NUMBERS // size_in, MAX_PRODUCTS // (rows * size_in)) // MIN_OUT * MIN_OUT
        return self._replace(
            size_out=min(self.size_out, max(MIN_OUT, most)), size_in=size_in, num_groups=num_groups
        )

    def piece(self, weight: QuantizedWeight, number: int) -> QuantizedWeight | None:
        """Return a weight of this kind over a piece of another one's memory, or None if it is too small."""
        blocked = isinstance(weight, int4pack.BlockedWeight)
        memory = (weight.blocked if isinstance(weight, int4pack.BlockedWeight) else weight.numbers).flatten()
        columns = self.size_in * weight.bits // 8
        size = self.size_out * columns
        if len(memory) < size:
            return None
        start = number % (len(memory) // size) * size
        numbers = memory[start : start + size].view(self.size_out, columns)
        scale = torch.ones(self.size_out, self.num_groups)
        make = int4pack.BlockedWeight if blocked else QuantizedWeight
        return make(numbers, scale, scale if self.asymmetric else None)


_fastest: dict[Kind, tuple[Product, ...]] = {}
_fastest_parts: dict[tuple[Kind, int], Product] = {}
_turn = count()


def fastest(kind: Kind, weights: Sequence[QuantizedWeight]) -> tuple[Product, ...]:
    """Return the fastest product for each of ROWS. It is measured once in a process, on `weights`."""
    if kind not in _fastest:
        for part, rows in ((kind.part(rows), rows) for rows in ROWS):
            if (part, rows) not in _fastest_parts:
                _fastest_parts[part, rows] = _measure(part, rows, weights)
        _fastest[kind] = tuple(_fastest_parts[kind.part(rows), rows] for rows in ROWS)
    return _fastest[kind]


def _measure(part: Kind, rows: int, weights: Sequence[QuantizedWeight]) -> Product:
    """Return the fastest product of a kind.

    Every call takes a new piece of the model's weights, as a step does: the weights of a large model come from memory,
    and those of a small one from the cache.
    """
    x = torch.ones(rows, part.size_in, dtype=part.dtype)
    weights = [weight for weight in weights if part.piece(weight, 0) is not None]

    def seconds(product: Product) -> float:
        lap, index = divmod(next(_turn), len(weights))
        piece = part.piece(weights[index], lap)
        assert piece is not None
        return times_of(partial(product.multiply, x, piece), rounds=1, warmup=0)[0]

    example = part.piece(weights[0], 0)
    assert example is not None
    products = [product for product in PRODUCTS[part.scheme] if product.fits(example)]
    best: dict[Product, float] = dict.fromkeys(products, math.inf)
    spent, calls = 0.0, 0
    while calls < 2 or (calls < MOST and spent < SECONDS):
        limit = CLOSE * min(best.values()) if calls >= 2 else math.inf
        for product in products:
            if best[product] <= limit:
                time = seconds(product)
                best[product], spent = min(best[product], time), spent + time
        calls += 1
    fastest = min(products, key=best.__getitem__)
    exact = min((product for product in products if not product.rounds_sums), key=best.__getitem__)
    return exact if best[exact] < SLOW * best[fastest] else fastest


@dataclass(frozen=True, slots=True)
class MeasuredMatmul:
    """Compute an operation such as `ops.int8_matmul` by the product that is the fastest on this processor.

    `definition` is that operation, and computes the types of x that no product is for. Each of `PRODUCTS[scheme]` does
    what the definition does in fewer steps, so it takes no part in the measurement.
    """

    scheme: str
    definition: Callable[[Tensor, QuantizedWeight, Tensor | None], Tensor]

    def __call__(self, x: Tensor, weight: QuantizedWeight, bias: Tensor | None) -> Tensor:
        rows = x.shape[0]
        if x.dtype not in FLOATS or not rows:
            return self.definition(x, weight, bias)
        kind = Kind.of(self.scheme, weight, x.dtype)
        products = _fastest.get(kind) or fastest(kind, [weight])
        y = products[min(bisect_left(ROWS, rows), len(ROWS) - 1)].multiply(x, weight)
        return (y if bias is None else y + bias).to(x.dtype)

    def prepare(self, weight: QuantizedWeight) -> QuantizedWeight:
        """Return the same weight in the memory order that the products want."""
        if self.scheme == "int4" and int4pack.fits(weight):
            return int4pack.BlockedWeight.of(weight)
        if _is_fp8(weight):
            # `float8` knows no NaN. A NaN makes its whole row of results NaN, and so does a scale.
            nan = float8.has_nan(weight.numbers)[:, None]
            return replace(weight, scale=weight.scale.masked_fill(nan, float("nan")))
        return weight

    def choose(self, weights: Sequence[QuantizedWeight], dtype: torch.dtype) -> list[Choice]:
        """Measure the products for these weights of a model and x of `dtype`, once. Return what they use."""
        kinds = {
            Kind.of(self.scheme, weight, dtype): isinstance(weight, int4pack.BlockedWeight)
            for weight in weights
        }
        choices = []
        for kind, blocked in kinds.items() if dtype in FLOATS else ():
            alike = [w for w in weights if isinstance(w, int4pack.BlockedWeight) == blocked]
            for rows, product in zip(ROWS, fastest(kind, alike), strict=True):
                choices.append(Choice(self.scheme, kind.size_out, kind.size_in, rows, product.name))
        return choices


def _is_fp8(weight: QuantizedWeight) -> bool:
    return weight.bits == 8 and weight.numbers.dtype == torch.float8_e4m3fn

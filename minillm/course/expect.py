"""Named failures for checks: each function returns if the value is right, or raises `Wrong` in the learner's terms.

    out = attention(q, k, v)
    expect.close(out, right, axes="T H D", mistakes={"the mask is off by one: …": result_of_that_mistake})

The functions look for failures in this order: None, not a tensor, shape, dtype, NaN, a known mistake, other values.
"""

import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.profiler import profile

from minillm.course.exercise import Wrong
from minillm.measure.memory import NoCounterError, peak_memory, return_freed_memory_at_once

Case = TypeVar("Case")
Result = TypeVar("Result")


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal float32 numbers, the same in every run. They do not depend on torch's global seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def that(condition: bool, message: str) -> None:
    """Raise `Wrong(message)` unless the condition holds."""
    if not condition:
        raise Wrong(message)


def something(value: Any, name: str = "the result") -> None:
    """Raise `Wrong` if the value is None."""
    that(value is not None, f"{name} is None: is there a `return` on every path?")


def equal(
    value: Any, right: Any, name: str = "the result", *, mistakes: Mapping[str, Any] | None = None
) -> None:
    """Raise `Wrong` unless two plain Python values (numbers, strings, lists, dicts) are equal and of the same type.

    An int is also accepted as a float, and NumPy's numbers as Python's. `mistakes` are as in `close`.
    """
    something(value, name)
    wanted = type(right).__name__
    if issubclass(type(value), Tensor):
        raise Wrong(f"{name} is a tensor of shape {list(value.shape)}; a {wanted} is wanted")
    given, value = value, _python(value)
    an_int_for_a_float = type(right) is float and type(value) is int
    that(
        an_int_for_a_float or type(value) is type(right),
        f"{name} is a {type(given).__name__} ({value!r:.80}); a {wanted} is wanted",
    )
    for message, mistaken in (mistakes or {}).items():
        if mistaken == right:
            raise ValueError(f"on these numbers the mistake {message!r} cannot be seen")
        that(value != mistaken, message)
    if isinstance(right, list | tuple):
        that(len(value) == len(right), f"{name} has {len(value)} entries; {len(right)} are wanted")
        for index, (got, correct) in enumerate(zip(value, right, strict=True)):
            that(got == correct, f"{_entry(name, index)} is {got!r:.80}; it should be {correct!r:.80}")
    that(value == right, f"{name} is {value!r:.80}; it should be {right!r:.80}")


def number(value: Any, name: str = "the result") -> int | float:
    """Return the value as Python's int or float. Raises `Wrong` for None, another type, NaN or an infinity."""
    something(value, name)
    plain = _python(value)
    if type(plain) not in (int, float):
        raise Wrong(f"{name} is a {type(value).__name__}; a number is wanted")
    that(math.isfinite(plain), f"{name} is {plain}")
    return plain  # type: ignore[no-any-return]


def seen(mistakes: Mapping[str, Result], right: Any, tolerance: float = 1e-4) -> dict[str, Result]:
    """Return the mistakes whose results differ from the right result on these numbers."""
    return {text: value for text, value in mistakes.items() if not _same(value, right, tolerance)}


def cases(
    answer: Callable[..., Any],
    right: Callable[..., Any],
    arguments: Iterable[tuple[Any, ...]],
    *,
    axes: str = "",
    tolerance: float = 1e-4,
    mistakes: Mapping[str, Callable[..., Any]] | None = None,
) -> None:
    """Compare `answer` with the function `right` on each tuple of arguments, with `close` or, without tensors, `equal`.

    `mistakes` maps a sentence to a function of the same arguments. A mistake is ignored in cases in which it gives the
    right result. Raises ValueError if a mistake gives the right result in every case.
    """
    unseen = dict(mistakes or {})
    for given in arguments:
        correct = right(*given)
        wrong = seen(
            {message: make(*given) for message, make in (mistakes or {}).items()}, correct, tolerance
        )
        unseen = {message: make for message, make in unseen.items() if message not in wrong}
        if isinstance(correct, Tensor):
            close(answer(*given), correct, axes, tolerance=tolerance, mistakes=wrong)
        else:
            shown = ", ".join(f"{value!r:.40}" for value in given)
            equal(answer(*given), correct, f"the result for ({shown})", mistakes=wrong)
    if unseen:
        raise ValueError(f"on none of these numbers the mistakes {list(unseen)} can be seen")


def explanation(
    mistakes: Mapping[str, Callable[[Case], Result]],
    cases: Sequence[Case],
    results: Sequence[Result],
    same: Callable[[Result, Result], bool] = operator.eq,
) -> str | None:
    """Return the first mistake that gives all of these results, or None.

    `mistakes` maps a sentence to a function of a case. A mistake that gives the right result in a few cases is still
    recognised, and a coincidence in one case does not mislead.
    """
    for message, make in mistakes.items():
        if all(same(result, make(case)) for case, result in zip(cases, results, strict=True)):
            return message
    return None


def tensor(
    value: Any, shape: Sequence[int], axes: str, dtype: torch.dtype | None = None, name: str = "the result"
) -> None:
    """Raise `Wrong` unless the value is a tensor of this shape, and of this dtype if given. `axes` names its axes."""
    something(value, name)
    if not (isinstance(value, Tensor) and issubclass(type(value), Tensor)):  # an object can claim to be one
        raise Wrong(f"{name} is a {type(value).__name__}; a tensor [{', '.join(axes.split())}] is wanted")
    got, wanted, names = list(value.shape), list(shape), axes.split()
    if got != wanted:
        message = f"{name} has shape {got}; it should be {wanted}, which is [{', '.join(names)}]"
        if swapped := _permutation(got, wanted, names):
            message += f". Yours looks like [{', '.join(swapped)}]: are two axes swapped?"
        raise Wrong(message)
    if dtype is not None and value.dtype != dtype:
        raise Wrong(f"{name} has dtype {_plain(value.dtype)}; it should be {_plain(dtype)}")


def finite(value: Tensor, axes: str, name: str = "the result") -> None:
    """Raise `Wrong` if the value contains NaN or an infinity."""
    bad = ~torch.isfinite(value)
    if bad.any():
        index = _first(bad)
        raise Wrong(
            f"{name} has {'NaN' if value[index].isnan() else 'an infinity'} in {int(bad.sum())} of {value.numel()} "
            f"places, first at {_where(index, axes)}"
        )


def close(
    value: Any,
    right: Tensor,
    axes: str,
    *,
    tolerance: float = 1e-4,
    mistakes: Mapping[str, Tensor] | None = None,
    why: Callable[[Tensor], str] | None = None,
    name: str = "the result",
) -> None:
    """Raise `Wrong` unless |value - right| <= tolerance · (1 + |right|), in right's shape and dtype.

    `mistakes` maps a sentence to the result of an answer with that mistake. The first result that fits gives the
    message. A result that equals the right values is an error of the check, and raises ValueError. For other wrong
    values, `why` returns a sentence that precedes the numbers, or "".
    """
    tensor(value, right.shape, axes, right.dtype, name)
    for message, mistaken in (mistakes or {}).items():
        if mistaken.shape == right.shape and not _differs(mistaken, right, tolerance).any():
            raise ValueError(f"on these numbers the mistake {message!r} cannot be seen")
        if mistaken.shape == value.shape and not _differs(value, mistaken, tolerance).any():
            raise Wrong(message)
    finite(value, axes, name)
    differs = _differs(value, right, tolerance)
    if differs.any():
        index = _first(differs)
        worst = (value.double() - right.double()).abs().max().item()
        numbers = (
            f"{name} is wrong in {int(differs.sum())} of {value.numel()} places, by up to {worst:.3g}; first at "
            f"{_where(index, axes)}: {value[index].item():.5g} where {right[index].item():.5g} is right"
        )
        reason = why(value) if why else ""
        raise Wrong(f"{reason} ({numbers})" if reason else numbers)


def own_memory(value: Tensor, name: str = "the result", **inputs: Tensor) -> None:
    """Raise `Wrong` if `value` shares memory with an input, so that writing into one changes the other."""
    for argument, given in inputs.items():
        if value.untyped_storage().data_ptr() == given.untyped_storage().data_ptr():
            raise Wrong(
                f"{name} is a view of `{argument}`: writing into one changes the other. Return a copy"
            )


def peak_of(warm_up: Callable[[], object], call: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of `call` and the peak of the bytes that it added; 0 if the system does not count memory.

    `warm_up` runs first, because a first call also loads code. Use this in parts that run in their own process.
    """
    try:
        return_freed_memory_at_once()
        warm_up()
        with peak_memory() as memory:
            out = call()
    except NoCounterError:
        return call(), 0
    return out, memory.added


@dataclass
class Ran:
    """The work inside a `with counted()`: the number of calls per torch operator, and the bytes of their tensors."""

    operators: Counter[str] = field(default_factory=Counter)
    allocated: int = 0


@contextmanager
def counted() -> Iterator[Ran]:
    """Count the torch operators inside the `with` by ATen name, for calls from Python and from compiled functions."""
    ran = Ran()
    with profile(use_cpu=True, use_kineto=False, profile_memory=True) as record:
        yield ran
    for event in record.function_events or []:
        ran.operators[event.name.removeprefix("aten::")] += 1
        ran.allocated += max(0, event.self_cpu_memory_usage)


@contextmanager
def without(pattern: str, message: str) -> Iterator[None]:
    """Raise `Wrong(message)` if the `with` calls a torch operator whose ATen name matches the regular expression."""
    with counted() as ran:
        yield
    that(not any(re.search(pattern, name) for name in ran.operators), message)


def _same(value: Any, right: Any, tolerance: float) -> bool:
    if not isinstance(right, Tensor):
        return bool(value == right)
    return value.shape == right.shape and not _differs(value, right, tolerance).any()


def _python(value: Any) -> Any:
    """Return the value as a plain Python type, so that no `==` of a learner's class runs."""
    if issubclass(type(value), np.generic):
        value = np.generic.item(value)
    for kind, rebuild in _KINDS.items():
        if issubclass(type(value), kind):
            return rebuild(value)
    return value


_KINDS: dict[type, Callable[[Any], Any]] = {
    bool: bool,
    int: lambda value: int.__add__(value, 0),
    float: lambda value: float.__add__(value, 0.0),
    str: lambda value: str.__add__(value, ""),
    bytes: lambda value: bytes.__add__(value, b""),
    list: lambda value: [_python(entry) for entry in list.__iter__(value)],
    tuple: lambda value: tuple(_python(entry) for entry in tuple.__iter__(value)),
    dict: lambda value: {_python(key): _python(entry) for key, entry in dict.items(value)},
}


def _entry(name: str, index: int) -> str:
    """Return a name for entry `index` of `name`: result[3], or "entry 3 of" a longer name."""
    short = name.removeprefix("the ")
    return f"{short}[{index}]" if short.isidentifier() else f"entry {index} of {name}"


def _differs(value: Tensor, right: Tensor, tolerance: float) -> Tensor:
    return ~torch.isclose(value.double(), right.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in mask.nonzero()[0])


def _where(index: tuple[int, ...], axes: str) -> str:
    """Return an index in words: "T=2, D=0" for (2, 0) and the axes "T D"."""
    return ", ".join(f"{axis}={i}" for axis, i in zip(axes.split(), index, strict=True)) or "the only value"


def _permutation(got: list[int], wanted: list[int], names: list[str]) -> list[str] | None:
    """Return the axes' names in the order of `got`, if `got` is a permutation of `wanted`; otherwise None."""
    if sorted(got) != sorted(wanted) or len(set(wanted)) < len(wanted):
        return None
    for order in permutations(range(len(wanted))):
        if [wanted[i] for i in order] == got:
            return [names[i] for i in order]
    return None


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""`swap`: your own part in the live engine.

    with minillm.swap(allocator=MyAllocator):
        llm = LLM("tinytales")          # or llm.variant(), which is quicker

Every engine that is built inside the `with` has the part, for as long as it lives; those from before keep theirs. The
parts are few, since each is a seam of the package and not a patch: the table below is all of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from minillm.ops import Ops

PARTS: dict[str, str] = {
    "allocator": "a class called with the number of blocks: minillm.cache.manager.Allocator",
    "prefix_cache": "a class called with block_size and seed: minillm.cache.prefix.PrefixCache",
    "scheduler": "a class with the methods and arguments of minillm.engine.scheduler.Scheduler",
    "sample": "a function (logits, rows, vocab_size): minillm.sampling.sample",
} | {name: f"a function with the signature of minillm.ops.{name}" for name in Ops.names()}

_parts: ContextVar[Mapping[str, Any]] = ContextVar("parts", default={})  # noqa: B039 – never written into


@contextmanager
def swap(**parts: Any) -> Iterator[None]:
    """Use these parts in the engines that are built inside the `with`; those of an outer `swap` stay.

    Raises `TypeError` for a name that is not one of `PARTS`, and for what cannot be called.
    """
    for name, part in parts.items():
        if name not in PARTS:
            raise TypeError(f"swap() has no part {name!r}: it takes {', '.join(PARTS)}")
        if not callable(part):
            raise TypeError(f"{name} is a {type(part).__name__}: give {PARTS[name]}")
    token = _parts.set({**_parts.get(), **parts})
    try:
        yield
    finally:
        _parts.reset(token)


def anything_swapped() -> bool:
    """Whether any part is swapped: it may not be fit for a recording (CUDA graphs)."""
    return bool(_parts.get())


def swapped(name: str, ours: Any) -> Any:
    """Return the part that replaces `ours`, or `ours`."""
    return _parts.get().get(name, ours)


def swapped_ops(ours: Ops) -> Ops:
    """The operations, with those that are swapped."""
    return replace(ours, **{name: swapped(name, getattr(ours, name)) for name in Ops.names()})

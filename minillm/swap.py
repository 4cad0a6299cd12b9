"""`swap`: your own part in the live engine.

    with minillm.swap(allocator=MyAllocator):
        llm = LLM("tinytales")          # or llm.variant(), which is quicker

Every engine built inside the `with` uses the part for as long as the engine lives. Earlier engines keep their own
parts. `parts()` lists everything that can be replaced.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minillm.ops import Ops

_swapped: ContextVar[Mapping[str, Any]] = ContextVar("swapped", default={})  # noqa: B039 – never written into


def parts() -> dict[str, str]:
    """Return the parts that `swap` accepts: a description of each, by name."""
    from minillm.ops import Ops  # not at the top, because it imports torch and `import minillm` must be quick

    return {
        "allocator": "a class called with the number of blocks: minillm.cache.manager.Allocator",
        "prefix_cache": "a class called with block_size and seed: minillm.cache.prefix.PrefixCache",
        "scheduler": "a class with the methods and arguments of minillm.engine.scheduler.Scheduler",
        "sample": "a function (logits, rows, vocab_size): minillm.sampling.sample",
        "verify": "a function (logits, rows, drafts, vocab_size): minillm.sampling.verify",
        "propose": "a function (token_ids, limit) that returns drafts: minillm.speculative.ngram.NGram",
    } | {name: f"a function with the signature of minillm.ops.{name}" for name in Ops.names()}


@contextmanager
def swap(**given: Any) -> Iterator[None]:
    """Use the given parts in every engine built inside the `with`. The parts of an outer `swap` stay in use.

    Raises `TypeError` for a name that `parts()` does not have, and for a value that cannot be called.
    """
    known = parts()
    for name, part in given.items():
        if name not in known:
            raise TypeError(f"swap() has no part {name!r}: it takes {', '.join(known)}")
        if not callable(part):
            raise TypeError(f"{name} is a {type(part).__name__}: give {known[name]}")
    token = _swapped.set({**_swapped.get(), **given})
    try:
        yield
    finally:
        _swapped.reset(token)


def anything_swapped() -> bool:
    """Return whether any part is swapped. CUDA graphs are then off, because the part may not be recordable."""
    return bool(_swapped.get())


def swapped(name: str, ours: Any) -> Any:
    """Return the part that replaces `ours`, or `ours`."""
    return _swapped.get().get(name, ours)


def swapped_ops(ours: "Ops") -> "Ops":
    """Return the operations, each replaced by its swapped part if there is one."""
    return replace(ours, **{name: swapped(name, getattr(ours, name)) for name in ours.names()})

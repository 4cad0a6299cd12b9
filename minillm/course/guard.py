"""Limits for an answer in the worker: it may not replace functions that a check uses, or call minillm's solution."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch

from minillm.course.exercise import Wrong

_CHECKS_OWN = re.compile(r"minillm\.course\.checks\.\w+\.\w+")
_LEAVE_IT = "on which the check relies: leave it as it is"
CHECK_DTYPE = torch.float32  # the default dtype under which a check makes its tensors


class Watch:
    """Remembers the functions and constants of modules and classes, to notice later replacements.

    It remembers the callable attributes of `places`, and all attributes of `whole`. A class in `whole` may not get new
    attributes.
    """

    def __init__(self, places: Sequence[Any] = (), whole: Sequence[Any] = ()) -> None:
        self._known = [(place, {k: v for k, v in vars(place).items() if callable(v)}) for place in places]
        self._known += [(place, dict(vars(place))) for place in whole]
        self._closed = [place for place in whole if isinstance(place, type)]
        self._dtype = CHECK_DTYPE

    @contextmanager
    def learner_runs(self) -> Iterator[None]:
        """Run the learner's code in the `with`, under the default dtype that it has set; then call `require_intact`."""
        torch.set_default_dtype(self._dtype)
        try:
            yield
        finally:
            self._dtype = torch.get_default_dtype()
            torch.set_default_dtype(CHECK_DTYPE)  # also sets torch.Storage
        self.require_intact()

    def require_intact(self) -> None:
        """Raise Wrong if the learner's code has replaced a remembered object."""
        for place, known in self._known:
            now = vars(place)
            if not all(map(is_, map(now.get, known), known.values())):
                name = next(name for name, value in known.items() if now.get(name) is not value)
                raise Wrong(f"your code replaces {_full_name(place)}.{name}, {_LEAVE_IT}")
            if place in self._closed and len(now) > len(known):
                raise Wrong(f"your code adds to {_full_name(place)}, {_LEAVE_IT}")


def _full_name(place: Any) -> str:
    return place.__name__ if isinstance(place, ModuleType) else f"{place.__module__}.{place.__name__}"


class OwnWork:
    """Refuses calls from the learner's file into minillm, except for the names in `uses` (None: all are allowed).

    A name also allows its contents: "minillm.config" allows every method of a config. Functions that the check itself
    passes to the answer are allowed.
    """

    def __init__(self, path: Path, uses: tuple[str, ...] | None) -> None:
        self._path, self._uses = str(path), uses
        self._refused = ""

    def require(self, target: Any) -> None:
        """Raise Wrong if the answer is a function or class of minillm, or a class made from one."""
        for part in getattr(target, "__mro__", (target,)):
            name = f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', '')}"
            if self._forbids(name):
                raise Wrong(_ready_made(name))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise Wrong at the first forbidden call inside the `with`, and again at its end if the answer caught it."""
        if self._uses is None:
            yield
            return
        self._refused = ""
        sys.setprofile(self._on_call)
        try:
            yield
        finally:
            sys.setprofile(None)
            if self._refused:
                raise Wrong(self._refused)

    def _on_call(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or not str(frame.f_globals.get("__name__")).startswith("minillm."):
            return
        name = _name(frame)
        if self._forbids(name) and self._called_by_the_learner(frame):
            self._refused = self._refused or _ready_made(name)
            raise Wrong(self._refused)

    def _forbids(self, name: str) -> bool:
        if self._uses is None or not name.startswith("minillm."):
            return False
        if name.startswith("minillm.course."):  # the check may have passed methods and closures to the answer
            return bool(_CHECKS_OWN.fullmatch(name))
        return not any(f"{name}.".startswith(f"{allowed}.") for allowed in self._uses)

    def _called_by_the_learner(self, frame: FrameType) -> bool:
        """Return whether the nearest caller outside of libraries is the learner's code, not minillm's."""
        caller = frame.f_back
        while caller is not None and caller.f_code.co_filename != self._path:
            if _name(caller).startswith("minillm."):
                return False
            caller = caller.f_back
        return caller is not None


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"


def _ready_made(name: str) -> str:
    return f"your code uses {name}, which is what you are writing: do without it"

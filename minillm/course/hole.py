"""Holes: one to five lines of a chapter that the reader writes in place.

    def chunk_size(missing, left):
        ...

    chunk_size = fill("08.chunk", chunk_size)

`fill` says whether the hole is empty, wrong or right. The chapter goes on with the reader's function when it is right,
and with its own otherwise, so every cell after a hole works. A hole is empty as long as `...` is in it.
"""

import ast
import importlib
import inspect
import signal
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from minillm.course.exercise import Wrong
from minillm.course.say import say

SECONDS = 10  # of the CPU that a check may take: a loop that does not end is stopped
PATIENCE = 6  # times as long by the clock: a busy machine is not the reader's fault
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Hole:
    """A hole's name, the chapter's own function, and the check, which raises Wrong in the reader's terms."""

    id: str
    answer: Callable[..., Any]
    check: Callable[[Callable[..., Any]], None]


def fill(hole_id: str, function: Function) -> Function:
    """Check the reader's function and return the one to go on with.

    Raises ValueError for a hole that does not exist.
    """
    hole, name = find(hole_id), function.__name__
    go_on = f"The cells below use the chapter's own `{name}`"
    if function is hole.answer:
        say(
            f"Hole {hole_id}: `{name}` is the chapter's own now. Run the cell with your function, then this one."
        )
    elif _is_empty(function):
        say(f"Hole {hole_id} is empty. {go_on} until you fill it.")
    elif problem := _problem(hole, function):
        say(f"✗ {hole_id}: {problem}\n{go_on}.")
    else:
        say(f"✓ {hole_id}: your `{name}` is right. The cells below use it.")
        return function
    return hole.answer  # type: ignore[return-value]


def find(hole_id: str) -> Hole:
    """Return the hole with this name. Raises ValueError if there is none."""
    chapter = hole_id.partition(".")[0]
    try:
        module = importlib.import_module(f"minillm.course.holes.ch{chapter}")
    except ModuleNotFoundError:
        raise ValueError(f"No chapter {chapter!r} has holes.") from None
    holes: dict[str, Hole] = {hole.id: hole for hole in module.HOLES}
    if hole_id not in holes:
        raise ValueError(f"There is no hole {hole_id!r}. Chapter {chapter} has {', '.join(holes)}.")
    return holes[hole_id]


def _is_empty(function: Callable[..., Any]) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Constant) and node.value is Ellipsis for node in ast.walk(tree))


def _problem(hole: Hole, function: Callable[..., Any]) -> str:
    """Return what is wrong with the function, or ""."""
    try:
        with _limited():
            hole.check(function)
    except Wrong as wrong:
        return str(wrong)
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == function.__code__.co_filename
        ]
        where = f" in line {lines[-1]} of your cell" if lines else ""
        return f"{type(error).__name__}{where}: {error}"
    return ""


@contextmanager
def _limited() -> Iterator[None]:
    """Raise Wrong in a check that takes too long, where the system has an alarm to do so."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise Wrong(f"It was stopped after {SECONDS} s. Does the loop end?")

    timers = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, stop) for number in timers}
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE * SECONDS)
    try:
        yield
    finally:
        for number, timer in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])

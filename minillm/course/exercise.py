"""What an exercise is: a function that the learner writes, and the parts on which it is marked.

Its words (title, hints) stand in `exercises/chNN.py`, which is read without torch; the code that checks it stands in
`checks/chNN.py`, which only the worker imports. A part is a small function of the learner's function: it returns,
and earns its points, or raises `Wrong` with what is wrong in the learner's terms.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Any

STUB = "your code here"  # what the NotImplementedError of an untouched exercise says
CheckFunction = Callable[[Any], None]


class Wrong(BaseException):
    """What is wrong with an answer, in words for the learner.

    A BaseException, so that an `except Exception` around a function that the check handed over does not hide it.
    """


@dataclass(frozen=True)
class Part:
    """One thing that an answer must do. `alone`: in a process of its own, so that its memory can be measured."""

    name: str
    points: int
    check: CheckFunction
    alone: bool = False


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise: `function` is the name that the learner defines, a function or a class.

    `minutes` is what it takes, `difficulty` runs from 1 to 5, `points` is the sum over the parts. `hints` are three:
    a nudge, the invariant, nearly the code. `changes` names the arguments that an answer is meant to change in place;
    changing another is an error. `uses` names what an answer may call of minillm, such as "minillm.ops.rope" or a whole
    module; None allows everything. `needs` is a module that some systems lack. `seconds` (of processor time) and
    `megabytes` (more than torch itself takes) limit an answer.
    """

    id: str
    title: str
    function: str
    points: int
    minutes: int
    difficulty: int
    hints: tuple[str, str, str]
    changes: tuple[str, ...] = ()
    uses: tuple[str, ...] | None = None
    seconds: float = 10.0
    megabytes: int = 2048
    needs: str = ""
    parts: list[Part] = field(default_factory=list, repr=False)

    def part(
        self, name: str, *, points: int, alone: bool = False
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Add the decorated function as the next part."""

        def add(function: CheckFunction) -> CheckFunction:
            self.parts.append(Part(name, points, function, alone))
            return function

        return add

    @property
    def can_be_done(self) -> bool:
        """Whether this system has what the exercise needs."""
        return not self.needs or find_spec(self.needs) is not None

    @property
    def chapter(self) -> str:
        """The chapter's number, as in its notebook's name: "03" of "03.1"."""
        return self.id.split(".")[0]

    @property
    def checks(self) -> str:
        """The module that holds the parts."""
        return f"minillm.course.checks.ch{self.chapter}"


def exercises_in(module: ModuleType) -> list[Exercise]:
    """The exercises that a module has by name, in the order of their definition."""
    return [value for value in vars(module).values() if isinstance(value, Exercise)]


def chapters() -> list[str]:
    """The numbers of the chapters that have exercises, in order."""
    package = importlib.import_module("minillm.course.exercises")
    return sorted(entry.name.removeprefix("ch") for entry in pkgutil.iter_modules(package.__path__))


def chapter_exercises(chapter: str) -> list[Exercise]:
    """The exercises of chapter "03". Raises ValueError for a chapter that has none."""
    if chapter not in chapters():
        raise ValueError(f"chapter {chapter} has no exercises; these have: {', '.join(chapters())}")
    return exercises_in(importlib.import_module(f"minillm.course.exercises.ch{chapter}"))


def find(exercise_id: str) -> Exercise:
    """The exercise "03.1". Raises ValueError, with those that there are."""
    known = [exercise for chapter in chapters() for exercise in chapter_exercises(chapter)]
    for exercise in known:
        if exercise.id == exercise_id:
            return exercise
    raise ValueError(
        f"there is no exercise {exercise_id!r} in this minillm; there are {', '.join(e.id for e in known)}. "
        "If the notebook is newer than the package, update the package."
    )

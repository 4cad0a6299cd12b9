"""An exercise: a function that the learner writes, and the parts on which it is marked.

Its words (title, hints) are in `exercises/chNN.py`, which is read without torch. The code that checks it is in
`checks/chNN.py`, which only the worker imports. A part is a small function that gets the learner's function. It
returns, and earns its points, or it raises `Wrong` with a message in the learner's terms.
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
    """Raised by a part that an answer fails. The message tells the learner what is wrong.

    A BaseException, so that an `except Exception` around a function that the check handed over does not hide it.
    """


@dataclass(frozen=True)
class Part:
    """One thing that an answer must do. `alone` runs it in a separate process, so that its memory can be measured."""

    name: str
    points: int
    check: CheckFunction
    alone: bool = False


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise. `function` is the name that the learner defines, a function or a class.

    - `minutes`: the usual time. `difficulty`: from 1 to 5. `points`: the sum over the parts.
    - `hints`: three of them, a nudge, the invariant, and nearly the code.
    - `changes`: the arguments that an answer is meant to change in place. Changing another argument is an error.
    - `uses`: the names of minillm that an answer may call, such as "minillm.ops.rope" or a whole module. None allows
      everything.
    - `needs`: a module that some systems lack.
    - `seconds` of processor time and `megabytes` of memory in addition to torch's: the limits of an answer.
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
        """Return a decorator that adds a function as the next part."""

        def add(function: CheckFunction) -> CheckFunction:
            self.parts.append(Part(name, points, function, alone))
            return function

        return add

    @property
    def can_be_done(self) -> bool:
        """Return whether this system has the module that the exercise needs."""
        return not self.needs or find_spec(self.needs) is not None

    @property
    def chapter(self) -> str:
        """Return the chapter's number, as in its notebook's name: "03" for "03.1"."""
        return self.id.split(".")[0]

    @property
    def checks(self) -> str:
        """Return the name of the module that holds the parts."""
        return f"minillm.course.checks.ch{self.chapter}"


def exercises_in(module: ModuleType) -> list[Exercise]:
    """Return the exercises of a module, in the order in which they are defined."""
    return [value for value in vars(module).values() if isinstance(value, Exercise)]


def chapters() -> list[str]:
    """Return the numbers of the chapters that have exercises, in order."""
    package = importlib.import_module("minillm.course.exercises")
    return sorted(entry.name.removeprefix("ch") for entry in pkgutil.iter_modules(package.__path__))


def chapter_exercises(chapter: str) -> list[Exercise]:
    """Return the exercises of chapter "03". Raises ValueError for a chapter that has none."""
    if chapter not in chapters():
        raise ValueError(
            f"chapter {chapter} has no exercises. These chapters have some: {', '.join(chapters())}"
        )
    return exercises_in(importlib.import_module(f"minillm.course.exercises.ch{chapter}"))


def find(exercise_id: str) -> Exercise:
    """Return the exercise "03.1". Raises ValueError for an unknown one, with the ids that exist."""
    known = [exercise for chapter in chapters() for exercise in chapter_exercises(chapter)]
    for exercise in known:
        if exercise.id == exercise_id:
            return exercise
    raise ValueError(
        f"there is no exercise {exercise_id!r} in this minillm. It has {', '.join(e.id for e in known)}. "
        "If the notebook is newer than the package, update the package."
    )

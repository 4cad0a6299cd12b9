"""Inside the worker: import the learner's code, run the parts on it, and see that it did not replace the judge.

The code is always written to a file and imported, as `triton.jit` and `inspect` want the source of what they are given.
"""

import builtins
import importlib.util
import pickle
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional

from minillm.course import answer as answer_module
from minillm.course import exercise as exercise_module
from minillm.course import expect
from minillm.course.exercise import Exercise, Part
from minillm.course.source import SENT, Source

_WATCHED: tuple[Any, ...] = (
    builtins,
    torch,
    torch.Tensor,
    torch.nn.functional,
    expect,
    answer_module,
    exercise_module,
)


def judge(
    source: Source, exercise: Exercise, parts: Iterable[Part], folder: Path
) -> Iterator[tuple[str, str | None]]:
    """(part, what is wrong with the answer or None) for each part in turn."""
    path = folder / "answer.py"
    path.write_text(source.text, encoding="utf-8")
    torch.manual_seed(0)
    before = _callables()
    try:
        answer = answer_module.Answer(_load(source, path), source.function, exercise.changes)
    except BaseException as error:  # the learner's own, SystemExit included
        failure = _explain(error, source, path, exercise)
        yield from ((part.name, failure) for part in parts)
        return
    for part in parts:
        wrong: str | None = None
        try:
            part.check(answer)
        except BaseException as error:
            wrong = _explain(error, source, path, exercise)
        yield part.name, _replaced(before) or wrong


def _load(source: Source, path: Path) -> Any:
    """The learner's function out of its module, which carries the name that pickles know it by."""
    spec = importlib.util.spec_from_file_location(source.home, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.home] = module
    setattr(module, SENT, lambda name: pickle.loads(source.values[name]))
    spec.loader.exec_module(module)
    return getattr(module, source.function)


def _explain(error: BaseException, source: Source, path: Path, exercise: Exercise) -> str:
    if isinstance(error, MemoryError | RuntimeError) and sys.platform == "linux":
        import resource

        # To explain takes memory too: use what is kept for it.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    return answer_module.explain(error, source, str(path), exercise.megabytes)


def _callables() -> list[dict[str, Any]]:
    return [{name: value for name, value in vars(place).items() if callable(value)} for place in _WATCHED]


def _replaced(before: list[dict[str, Any]]) -> str | None:
    """Which function of torch, Python or the check the learner's code has put another in place of."""
    for place, known in zip(_WATCHED, before, strict=True):
        now = vars(place)
        for name, value in known.items():
            if now.get(name) is not value:
                owner = place.__name__ if isinstance(place, ModuleType) else f"torch.{place.__name__}"
                return f"your code replaces {owner}.{name}, on which the check relies: leave it as it is"
    return None

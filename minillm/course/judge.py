"""Inside the worker: import the learner's code and run the parts of an exercise on it.

The code is always written to a file and imported, because `triton.jit` and `inspect` need the source of a function.
A part is passed only if its check returns. Every other outcome gives a sentence that is never empty.
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
from minillm.course import expect, guard
from minillm.course.answer import Answer, explain
from minillm.course.exercise import Exercise, Part, Wrong
from minillm.course.guard import CHECK_DTYPE, OwnWork, Watch
from minillm.course.source import SENT, Source


def judge(
    source: Source, exercise: Exercise, parts: Iterable[Part], folder: Path
) -> Iterator[tuple[str, str | None]]:
    """Yield (part, what is wrong with the answer or None) for each part in order."""
    path = folder / "answer.py"
    path.write_text(source.text, encoding="utf-8")
    torch.manual_seed(0)
    watch, own_work = _watch(exercise), OwnWork(path, exercise.uses)
    answer, failure = None, ""
    try:
        with watch.learner_runs():
            target = _load(source, path)
        own_work.require(target)
        answer = Answer(target, source.function, exercise.changes, watch)
    except BaseException as error:  # the learner's own, SystemExit included
        failure = _explain(error, source, path, exercise)
    for part in parts:
        wrong: str | None = failure
        if answer is not None:
            try:
                with own_work.watched():
                    part.check(answer)
                torch.set_default_dtype(CHECK_DTYPE)  # a method of the learner's class may have changed it
                watch.require_intact()
                wrong = None
            except BaseException as error:
                wrong = _explain(error, source, path, exercise)
        yield part.name, wrong


def _watch(exercise: Exercise) -> Watch:
    """Return a Watch of torch, Python's builtins, the checks, and the modules and classes that these checks use."""
    checks = {name: sys.modules[name] for name in {part.check.__module__ for part in exercise.parts}}
    used = [value for module in checks.values() for value in vars(module).values()]
    ours = [Wrong, Answer, Watch, OwnWork, expect, answer_module, exercise_module, guard, *checks.values()]
    places = {torch, torch.Tensor, torch.nn.functional, builtins}
    places |= {value for value in used if isinstance(value, ModuleType | type)}
    return Watch(list(places.difference(ours)), ours)


def _load(source: Source, path: Path) -> Any:
    """Import the learner's module, under the name that pickles refer to, and return its function."""
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

        # The explanation needs memory too: raise the limit to the reserve.
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    return explain(error, source, str(path), exercise.megabytes)

"""Call the learner's function for a check, and explain its exceptions in the learner's terms.

A check calls the function through an `Answer`. It compares the arguments with the function's signature, and notices if
the call changed one of them. Every other fault raises an exception, and `explain` turns it into a sentence with the
learner's own line.
"""

import inspect
import re
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minillm.course.exercise import STUB, Wrong
from minillm.course.guard import Watch
from minillm.course.source import Source


class Answer:
    """The learner's function or class. Call it like the original."""

    def __init__(
        self, target: Callable[..., Any], name: str, changes: tuple[str, ...] = (), watch: Watch | None = None
    ) -> None:
        self._target, self._name, self._changes = target, name, changes
        self._watch = watch or Watch()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._bind(args, kwargs)
        before = {name: _state(value) for name, value in arguments.items() if name not in self._changes}
        with self._watch.learner_runs():
            result = self._target(*args, **kwargs)
        for name, state in before.items():
            if _state(arguments[name]) != state:
                raise Wrong(
                    f"{self._name} changes its argument `{name}`, which the caller still needs: work on a copy, and "
                    f"{_where_to_look(name, arguments[name])}"
                )
        return _exact(result)

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            signature = inspect.signature(self._target)
        except ValueError:  # a builtin has no signature
            return {}
        try:
            return dict(signature.bind(*args, **kwargs).arguments)
        except TypeError as error:
            asked = [f"{len(args)} values"] * bool(args) + [f"{name}=…" for name in kwargs]
            raise Wrong(
                f"{self._name} must keep its parameters: it is called with {' and '.join(asked) or 'nothing'}, "
                f"and yours is {self._name}{signature}: {error}"
            ) from None


def _exact(value: Any) -> Any:
    """Return a tensor, or a tuple of tensors, as plain Tensors, so that no method of a learner's class runs."""
    if issubclass(type(value), Tensor) and type(value) is not Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            return Tensor.as_subclass(value, Tensor)
    return tuple(map(_exact, value)) if type(value) is tuple else value


def _state(value: Any) -> Any:
    """Return an object that differs after `value` was changed in place.

    For a tensor it contains torch's count of changes. That count misses changes through `.data` or numpy, so for a
    small tensor it also contains the bytes.
    """
    if isinstance(value, Tensor):
        if value.numel() > 100_000:
            return value._version
        plain = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy knows no bfloat16
        return value._version, plain.numpy().tobytes()
    return repr(value) if isinstance(value, list | dict | set) else None


def _where_to_look(name: str, changed: Any) -> str:
    """Return advice on the operations that change an argument of this kind in place."""
    if isinstance(changed, Tensor):
        return "look for operations that end in _, for -= and +=, and for assignments to a slice"
    if isinstance(changed, list):
        return f"look for append and +=: `ids = {name}` makes no copy, `list({name})` does"
    return f"remember that `mine = {name}` makes none, while `{name}.copy()` does"


def explain(error: BaseException, source: Source, path: str, megabytes: int) -> str:
    """Return why the call failed, in one sentence that is never empty. `path` is the file of the learner's code."""
    try:
        return _explain(error, source, path, megabytes)
    except BaseException:  # a learner's own exception can fail to describe itself
        return f"{source.function} raises an exception that cannot be shown"


def _explain(error: BaseException, source: Source, path: str, megabytes: int) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == path]
    if type(error) is Wrong and not (own and frames[-1] is own[-1]):  # else the learner's code has raised it
        return BaseException.__str__(error)
    name, message = source.function, _short(str(error))
    if isinstance(error, NotImplementedError) and message == STUB:
        return f"{name} is not written yet: replace the line `raise NotImplementedError(...)`"
    if not own:
        return f"what {name} returned cannot be checked: {type(error).__name__}: {message}"
    where = f" at {source.place(own[-1].lineno or 1)}: `{own[-1].line}`"
    if isinstance(error, RecursionError):
        return f"{name} calls itself without end{where}"
    if isinstance(error, SystemExit):
        return f"{name} calls sys.exit(){where}. Let it return its result instead"
    asked = re.search(r"tried to allocate (\d+) bytes", message)
    if asked or isinstance(error, MemoryError):
        amount = f"{int(asked[1]) / 1e9:.1f} GB" if asked else "more memory"
        return f"{name} asks for {amount} where {megabytes / 1000:.1f} GB is the limit,{where}"
    return f"{name} raises {': '.join(filter(None, [type(error).__name__, message]))}{where}"


def _short(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else message[:limit] + " …"

"""Record the launches of a step: count them with their bytes, or place them on a time axis.

`Ledger` counts. It sees every operator that Python calls and the bytes of its tensors, so its counts are exact and
the same on every machine. `as_one` adds a hand-written kernel, which torch does not know. `timelines` comes from
torch.profiler. It shows each kernel on a GPU, or each operator on a CPU, from start to end, and the gaps between them.
"""

import os
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minillm.config import ModelConfig
from minillm.measure.timing import synchronize
from minillm.model.transformer import Transformer

STEP = "minillm: one step"  # the name of a step in the profiler's record
ALLOCATES = ("empty", "empty_like", "empty_strided", "new_empty")  # these take memory and launch nothing
LOOKS_UP = ("embedding", "index", "index_select", "gather")  # these read as many rows as they return
# Sparse products read one row of a matrix for each index. Here: the matrix, the axis along its rows, the indices.
PICKS = {"embedding_bag": (0, 1, 1), "sparse_sampled_addmm": (4, 0, 2)}


@dataclass(frozen=True, slots=True)
class Call:
    """One operator, and the bytes of the tensors that it reads and writes. A view reads and writes none."""

    name: str
    is_view: bool
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def bytes_moved(self) -> int:
        return self.bytes_read + self.bytes_written


class Ledger(TorchDispatchMode):
    """Note each operator that is called in `with Ledger() as ledger: step()`, in order.

    A launch counts as reading its tensors and writing its result. That holds on a GPU for tensors larger than its
    cache. An operator that copies into a part of a tensor counts as writing as much as it is given.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self._inside_one = False

    @property
    def launches(self) -> list[Call]:
        """Return the calls that run something on the device: all except views."""
        return [call for call in self.calls if not call.is_view]

    @property
    def bytes_moved(self) -> int:
        return sum(call.bytes_moved for call in self.calls)

    def __enter__(self) -> "Ledger":
        # Outside inference mode, torch splits some operators before they get here.
        self._inference = torch.inference_mode()
        self._inference.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._inference.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not self._inside_one and name not in ALLOCATES:
            self.calls.append(_call(name, func, args, out))
        return out

    def as_one(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` counted as one launch that reads its tensors once and writes its results once."""

        def one(*args: Any) -> Any:
            self._inside_one = True
            try:
                out = function(*args)
            finally:
                self._inside_one = False
            self.calls.append(Call(name, False, _nbytes(tensors(args)), _nbytes(tensors([out]))))
            return out

        return one


def _call(name: str, func: Any, args: Any, out: Any) -> Call:
    given, made = list(tensors(args)), list(tensors([out]))
    if name in PICKS:
        matrix, axis, indices = PICKS[name]
        rows = given[indices].numel() * given[matrix].shape[axis] * given[matrix].element_size()
        rest = [x for i, x in enumerate(given) if i != matrix]
        return Call(name, False, _nbytes(rest) + rows, _nbytes(made[:1]))
    if torch.Tag.pointwise in func.tags and name.endswith("_"):  # y.mul_(x) reads x and y, and writes y
        return Call(name, False, _nbytes(given), _nbytes(given[:1]))
    if func._schema.is_mutable:
        # The first tensor is the target. The largest of the others is the content.
        rest = given[1:]
        return Call(name, False, _nbytes(rest), max((_nbytes([x]) for x in rest), default=_nbytes(given)))
    if not is_launch(func, args, out):
        return Call(name, True)
    read = _nbytes(given)
    if name in LOOKS_UP:
        read = _nbytes(made) + _nbytes(given[1:])
    return Call(name, False, read, _nbytes(made))


def is_launch(func: Any, args: Any, out: Any) -> bool:
    """Return whether an operator that got `args` and returned `out` ran something on the device.

    It did if it writes into its arguments or if its result is new memory. A view does neither.
    """
    memory = {x.untyped_storage().data_ptr() for x in tensors(args)}
    return func._schema.is_mutable or any(
        x.untyped_storage().data_ptr() not in memory for x in tensors([out])
    )


def launches_by_depth(
    model: Transformer, count: Callable[[Transformer], int]
) -> Callable[[ModelConfig], float]:
    """Return a function that gives the launches in a step of a model like this one with any number of layers.

    `count` is called twice, with the whole model and with its first half of the layers. The difference is what one
    layer launches. Raises ValueError for a model of one layer.
    """
    layers, half = len(model.weights.blocks), copy(model)
    if layers < 2:
        raise ValueError(f"The model has {layers} layer. Two are needed to tell a layer from the rest.")
    half.weights = replace(model.weights, blocks=model.weights.blocks[: layers // 2])
    whole = count(model)
    per_layer = (whole - count(half)) / (layers - layers // 2)
    return lambda config: whole + (config.num_hidden_layers - layers) * per_layer


def tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    """Yield the tensors among these values, and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor) and value.layout == torch.sparse_csr:
            yield from (value.values(), value.crow_indices(), value.col_indices())
        elif isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def _nbytes(some: Iterable[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in some)


@dataclass(frozen=True, slots=True)
class Launch:
    """The name of an operator or kernel, and its start and end in seconds since the start of the step."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The duration of one step, and its launches in the order of their start, which ran on the device `on`."""

    seconds: float
    launches: tuple[Launch, ...]
    on: Literal["cpu", "cuda"]

    @property
    def busy(self) -> float:
        """Return the seconds in which at least one launch was running. Two at the same time count once."""
        total, until = 0.0, 0.0
        for launch in self.launches:
            total += max(0.0, launch.end - max(launch.start, until))
            until = max(until, launch.end)
        return total


def timelines(
    step: Callable[[], object], rounds: int, device: torch.device | str, *, warmup: int = 3
) -> list[Timeline]:
    """Return torch.profiler's record of `rounds` calls of `step`, after `warmup` calls that are not recorded.

    The profiler itself takes about a microsecond per launch. On a CPU this time is part of the gaps.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it reports its own start and stop on stderr
    device = torch.device(device)
    cuda = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    for _ in range(warmup):
        step()
    synchronize(device)
    with profile(activities=[ProfilerActivity.CPU, *cuda]) as recorded:
        for _ in range(rounds):
            with record_function(STEP):
                step()
                synchronize(device)
    return read(recorded.events(), "cuda" if cuda else "cpu")


def read(events: Iterable[Any], on: Literal["cpu", "cuda"]) -> list[Timeline]:
    """Return the steps in the profiler's events: kernels on a GPU, or on a CPU the operators that Python called."""
    events = list(events)
    marks = [e for e in events if e.name == STEP and _is_on(e, "cpu")]
    if on == "cpu":
        launched = [e for e in events if e.cpu_parent is not None and e.cpu_parent.name == STEP]
    else:
        launched = [e for e in events if _is_on(e, "cuda") and e.name != STEP and not e.is_user_annotation]
    steps = []
    for mark in sorted(marks, key=lambda e: e.time_range.start):
        begin, end = mark.time_range.start, mark.time_range.end
        inside = [e for e in launched if begin <= e.time_range.start < end]
        launches = [
            Launch(
                e.name.removeprefix("aten::"),
                1e-6 * (e.time_range.start - begin),
                1e-6 * (e.time_range.end - begin),
            )
            for e in sorted(inside, key=lambda e: e.time_range.start)
        ]
        steps.append(Timeline(1e-6 * (end - begin), tuple(launches), on))
    return steps


def _is_on(event: Any, device: str) -> bool:
    return bool(event.device_type.name.lower() == device)

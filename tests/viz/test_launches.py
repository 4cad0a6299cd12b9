"""Operators counted with their bytes, and the profiler's record read as steps."""

from dataclasses import astuple, dataclass, field
from enum import Enum
from typing import Any

import pytest
import torch

from minillm.batch import Batch, Chunk
from minillm.cpu.paged_attention import paged_attention
from minillm.layer_kv import LayerKV
from minillm.viz.launches import (
    STEP,
    Launch,
    Ledger,
    Timeline,
    is_launch,
    launches_by_depth,
    read,
    timelines,
)


def calls_of(step: Any) -> list[tuple[str, bool, int, int]]:
    with Ledger() as ledger:
        step()
    return [(call.name, call.is_view, call.bytes_read, call.bytes_written) for call in ledger.calls]


X, Y = torch.ones(4, 8), torch.ones(4, 8)
INTO = torch.zeros(10, 8)
SIZE = 4 * 8 * 4


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda: X + Y, ("add", False, 2 * SIZE, SIZE)),
        (lambda: X.view(8, 4), ("view", True, 0, 0)),
        (lambda: X.transpose(0, 1), ("transpose", True, 0, 0)),
        (lambda: torch.cat([X, Y], 1), ("cat", False, 2 * SIZE, 2 * SIZE)),
        (lambda: X.sum(1), ("sum", False, SIZE, 16)),
        (lambda: INTO[torch.tensor([1, 2])], ("index", False, 2 * 32 + 16, 64)),
        (lambda: X.clone().mul_(X), ("mul_", False, 2 * SIZE, SIZE)),
        (lambda: INTO.index_copy_(0, torch.arange(4), X), ("index_copy_", False, SIZE + 32, SIZE)),
        (lambda: torch.rms_norm(X, (8,), Y[0], 1e-5), ("rms_norm", False, SIZE + 32, SIZE)),
    ],
    ids=[
        "add",
        "view",
        "transpose",
        "cat",
        "sum",
        "index",
        "changed in place",
        "copied in place",
        "fused by torch",
    ],
)
def test_an_operator_and_its_bytes(step: Any, expected: tuple[str, bool, int, int]) -> None:
    assert calls_of(step)[-1] == expected


def test_a_sparse_product_reads_the_rows_that_it_picks() -> None:
    """Of a cache of 40 blocks, the 9 and 4 keys and values of two requests: for each of 4 heads, rows of 8."""
    batch = Batch.of([Chunk([0], 8, [0, 1, 2]), Chunk([0], 3, [3])], 4)
    q, kv = torch.randn(2, 4, 8), LayerKV(*torch.randn(2, 40, 4, 2, 8))
    paged_attention(q, kv, batch, None)  # the pattern is made
    with Ledger() as ledger:
        paged_attention(q, kv, batch, None)
    _, scores, *_, out = map(astuple, ledger.launches)
    entries, indices = 4 * (9 + 4), 4 * (4 * (9 + 4) + 2 * 4 + 1)
    assert scores == (
        "sparse_sampled_addmm",
        False,
        entries * 32 + indices + 2 * 128 + entries * 4,
        entries * 4,
    )
    assert out == ("embedding_bag", False, entries * 32 + indices + entries * 4, 2 * 128)


@pytest.mark.parametrize(
    ("func", "args", "launched"),
    [
        (torch.ops.aten.add.Tensor, (X, Y), True),
        (torch.ops.aten.cat.default, ([X, Y],), True),
        (torch.ops.aten.max.dim, (X, 1), True),
        (torch.ops.aten.add_.Tensor, (INTO, 1), True),
        (torch.ops.aten.view.default, (X, [8, 4]), False),
        (torch.ops.aten.split.Tensor, (X, 2), False),
    ],
    ids=["a new tensor", "of a list", "two new tensors", "in place", "a view", "several views"],
)
def test_new_memory_or_writing_in_place_is_a_launch(func: Any, args: Any, launched: bool) -> None:
    assert is_launch(func, args, func(*args)) is launched


@dataclass
class Layers:
    blocks: list[int]


@dataclass
class Model:
    weights: Layers


@dataclass
class Depth:
    num_hidden_layers: int


@pytest.mark.parametrize("layers", [2, 5, 6])
def test_launches_of_another_depth(layers: int) -> None:
    model: Any = Model(Layers([0] * layers))
    launches: Any = launches_by_depth(model, lambda some: 5 + 10 * len(some.weights.blocks))  # type: ignore[arg-type]
    assert [launches(Depth(n)) for n in (1, layers, 32)] == [15, 5 + 10 * layers, 325]
    assert len(model.weights.blocks) == layers


def test_one_layer_cannot_be_told_from_the_rest() -> None:
    model: Any = Model(Layers([0]))
    with pytest.raises(ValueError, match="1 layer"):
        launches_by_depth(model, lambda some: 7)


def test_a_view_is_no_launch_and_memory_is_no_call() -> None:
    with Ledger() as ledger:
        (torch.empty_like(X).t() @ Y).chunk(2)
    assert [call.name for call in ledger.calls] == ["t", "matmul", "chunk"]
    assert [call.name for call in ledger.launches] == ["matmul"]
    assert ledger.bytes_moved == 2 * SIZE + 8 * 8 * 4


def test_a_kernel_is_one_launch_whatever_is_inside() -> None:
    with Ledger() as ledger:
        fused = ledger.as_one("silu_and_add", lambda x, y, scale: (torch.sigmoid(x) * x * scale + y, x + y))
        fused(X, Y, 2.0)
        X + Y
    assert [call.name for call in ledger.calls] == ["silu_and_add", "add"]
    assert ledger.calls[0].bytes_moved == 4 * SIZE


def test_a_kernel_that_raises_is_not_counted_and_hides_nothing_after_it() -> None:
    with Ledger() as ledger:
        with pytest.raises(ZeroDivisionError):
            ledger.as_one("bad", lambda: 1 / 0)()
        X + Y
    assert [call.name for call in ledger.calls] == ["add"]


def test_busy_counts_an_overlap_once() -> None:
    launches = (Launch("a", 0.0, 2.0), Launch("b", 1.0, 3.0), Launch("c", 1.2, 1.4), Launch("d", 5.0, 6.0))
    assert Timeline(8.0, launches, "cuda").busy == pytest.approx(4.0)


def test_the_operators_of_each_step_on_a_cpu() -> None:
    steps = timelines(lambda: (X @ Y.t()).sum(), 3, "cpu", warmup=1)
    assert [[launch.name for launch in step.launches] for step in steps] == [["t", "matmul", "sum"]] * 3
    for step in steps:
        edges = [edge for launch in step.launches for edge in (launch.start, launch.end)]
        assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= step.seconds
        assert 0 < step.busy < step.seconds


class Device(Enum):
    CPU = 0
    CUDA = 1


@dataclass
class Range:
    start: float
    end: float


@dataclass
class Event:
    name: str
    device_type: Device
    time_range: Range
    cpu_parent: "Event | None" = None
    is_user_annotation: bool = field(default=False)


def test_the_kernels_of_each_step_on_a_gpu() -> None:
    """Microseconds; the second step's mark comes first in the list, and a mark has a twin on the GPU's own clock."""
    marks = [
        Event(STEP, Device.CPU, Range(100, 160), None, True),
        Event(STEP, Device.CPU, Range(10, 90), None, True),
    ]
    twin = Event(STEP, Device.CUDA, Range(20, 60), None, True)
    other = Event("somebody's mark", Device.CUDA, Range(20, 60), None, True)
    operator = Event("aten::mm", Device.CPU, Range(12, 18), marks[1])
    kernels = [
        Event("gemm", Device.CUDA, Range(30, 50)),
        Event("rms_norm", Device.CUDA, Range(20, 25)),
        Event("gemm", Device.CUDA, Range(120, 150)),
        Event("before any step", Device.CUDA, Range(1, 5)),
    ]
    first, second = read([*marks, twin, other, operator, *kernels], "cuda")
    assert [launch.name for launch in first.launches] == ["rms_norm", "gemm"]
    assert first.launches[0].start == pytest.approx(10e-6) and first.seconds == pytest.approx(80e-6)
    assert first.busy == pytest.approx(25e-6)
    assert [(launch.name, round(launch.end * 1e6)) for launch in second.launches] == [("gemm", 50)]

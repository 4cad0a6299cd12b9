"""Matrices that a file stores in fewer bits become floats that compute the same."""

import pytest
import torch

from minillm import LLM, SamplingParams
from minillm.course import expect
from minillm.course.in_floats import in_floats, llm_in_floats
from minillm.model.linear import Linear
from minillm.ops import Ops
from minillm.quantization.absmax import Grid
from minillm.quantization.linear import Joined, Kind, QuantizedLinear

X = expect.randn(3, 32)


def packed(bits: int, kind: Kind, bias: bool = True, order: torch.Tensor | None = None) -> QuantizedLinear:
    grid = Grid.of(weight := expect.randn(8, 32, seed=bits), bits, 16, symmetric=False)
    return QuantizedLinear(grid.pack(grid.round(weight)), torch.arange(8.0) if bias else None, kind, order)


@pytest.mark.parametrize(
    "projection",
    [
        packed(8, "int8"),
        packed(4, "int4", bias=False),
        packed(4, "int4", order=torch.randperm(32, generator=torch.Generator().manual_seed(0))),
        Joined(
            [packed(8, "int8"), packed(4, "int4", order=torch.arange(31, -1, -1)), Linear(X.t() @ X, X[0])]
        ),
        Joined([packed(8, "int8", bias=False), packed(4, "int4", bias=False)]),
    ],
    ids=["8 bits", "4 bits", "act-order", "joined", "joined without bias"],
)
def test_the_floats_compute_the_same(projection: QuantizedLinear | Joined) -> None:
    floats = in_floats(projection)
    assert isinstance(floats, Linear)
    assert torch.allclose(floats(X, Ops()), projection(X, Ops()), atol=1e-4)


def test_a_projection_that_is_not_known_stays() -> None:
    linear, odd = Linear(X.t()), lambda x, ops: x
    assert in_floats(linear) is linear and in_floats(odd) is odd
    joined = Joined([linear, odd])
    assert in_floats(joined) is joined


def test_an_engine_of_packed_weights_goes_on_in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    floats = llm_in_floats("tinytales", max_model_len=64)
    params = SamplingParams(max_tokens=4, temperature=0.0)
    stored = LLM("tinytales", dtype="float32", max_model_len=64, quantization="int8")
    monkeypatch.setattr("minillm.course.in_floats.LLM", lambda *_, **__: stored)
    again = llm_in_floats("tinytales")
    assert again is stored and again.engine.runner.model.weights is again.model.weights
    kinds: list[type] = []
    again.model.with_projections(lambda name, projection: kinds.append(type(projection)) or projection)
    assert set(kinds) == {Linear}
    [mine], [theirs] = (llm.generate(["Once upon"], params) for llm in (again, floats))
    assert mine.outputs[0].token_ids == theirs.outputs[0].token_ids

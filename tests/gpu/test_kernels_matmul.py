"""The products with packed weights on a GPU: at the sizes of real models, inside a graph and in the engine."""

from typing import Any

import pytest

pytest.importorskip("triton", reason="triton has no build for this system")

import torch

import minillm
from minillm import LLM, SamplingParams, ops
from tests.kernels import cases_matmul
from tests.kernels.cases_matmul import CASES, MATMULS, W8A8, weight_of
from tests.kernels.cases_paged import normal

pytestmark = pytest.mark.gpu
LIMITS = {torch.bfloat16: 1e-2, torch.float16: 1e-3, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", LIMITS)
PROMPTS = ["Once upon a time", "The fox", "One cold morning, a baker called", "It was raining"]


@DTYPES
@pytest.mark.parametrize("name", CASES)
def test_each_output_is_float64_to_rounding(name: str, dtype: torch.dtype) -> None:
    assert cases_matmul.product(**CASES[name], dtype=dtype, device="cuda") <= LIMITS[dtype]


@DTYPES
@pytest.mark.parametrize("num_tokens", [1, 16, 17, 64, 65, 300])
@pytest.mark.parametrize("call", [{"kind": "int4", "group_size": 128}, {"kind": "int8"}, {"kind": "fp8"}])
def test_real_shapes(call: dict[str, Any], num_tokens: int, dtype: torch.dtype) -> None:
    """Few programs and many, with splits and without."""
    shape = (num_tokens, 1536, 4096)
    assert cases_matmul.product(**call, shape=shape, dtype=dtype, device="cuda") <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("kind", ["int4", "int8", "fp8"])
def test_every_number_of_a_format_is_unpacked_exactly(kind: str, dtype: torch.dtype) -> None:
    cases_matmul.unpacked_numbers(kind, dtype, device="cuda")


@DTYPES
@pytest.mark.parametrize("shape", [*W8A8, (65, 1536, 4096), (300, 1536, 4096)])
def test_w8a8_is_the_definition(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Up to the last bit: the compiler may join the last product and sum into one instruction."""
    num_tokens, size_out, size_in = shape
    x = normal(num_tokens, size_in, seed=1, dtype=dtype, device="cuda")
    weight = weight_of("w8a8", size_out, size_in, device="cuda")
    bias = cases_matmul.bias_of(size_out, dtype, "cuda")
    found, right = (matmul(x, weight, bias) for matmul in (MATMULS["w8a8"], ops.w8a8_matmul))
    torch.testing.assert_close(found, right, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


def test_w8a8_adds_up_the_largest_integers() -> None:
    cases_matmul.largest_sums(device="cuda")


@DTYPES
def test_tokens_are_quantised_as_torch_does(dtype: torch.dtype) -> None:
    cases_matmul.tokens_are_quantised(dtype, device="cuda")


@pytest.mark.parametrize("kind", MATMULS)
def test_splits_nan_and_graphs(kind: str) -> None:
    cases_matmul.a_nan_is_seen(kind, device="cuda")
    assert cases_matmul.split_against_unsplit(kind, device="cuda") <= (1e-6 if kind == "w8a8" else 1e-3)
    weight = weight_of(kind, 512, 1024, device="cuda")
    x = normal(1, 1024, seed=1, dtype=torch.float16, device="cuda")
    static = torch.zeros_like(x)
    MATMULS[kind](static, weight, None)  # compiled before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = MATMULS[kind](static, weight, None)
    static.copy_(x)
    right = MATMULS[kind](x, weight, None)
    for _ in range(3):
        graph.replay()
        assert torch.equal(out, right)


@pytest.mark.parametrize("quantization", ["int4", "int8"])
def test_the_engine_writes_what_the_definition_of_the_product_writes(quantization: str) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    greedy = SamplingParams(temperature=0, max_tokens=48, ignore_eos=True)
    arguments = {"device": "cuda", "dtype": "float32", "quantization": quantization}
    name = f"{quantization}_matmul"
    with minillm.swap(**{name: getattr(ops, name)}), LLM("tinytales", **arguments) as llm:
        expected = llm.generate(PROMPTS, greedy)
    with LLM("tinytales", **arguments) as llm:
        assert llm.engine.runner.graphs is not None
        found = llm.generate(PROMPTS, greedy)
    assert [o.outputs[0].token_ids for o in found] == [o.outputs[0].token_ids for o in expected]

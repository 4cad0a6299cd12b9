"""How much faster does a model decode with weights of 8 and 4 bits, and when is it slower?

    python benchmarks/quantized_linear.py

A Llama of 88M parameters with random weights (12 layers of width 768) generates tokens in float32 and in each scheme of
`LLM(quantization=...)`. All engines share one process and run alternately. Then all its matrices but the head are
multiplied by 64 rows, as a step of 64 requests does, and one of them by 1 to 256 rows, to find the rows at which an
INT8 product that wins for one row loses to float32. `--cpu-time 1` counts the processor's time, for a machine with
other work.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _rows import arguments, report
from decode_vs_transformers import llama_100m

from minillm import LLM, SamplingParams
from minillm.cpu import quantized
from minillm.measure.timing import ratio_of, spread_of
from minillm.measure.trace import LinearChoice
from minillm.model.linear import Projection
from minillm.ops import int8_matmul, ops_for
from minillm.quantization.absmax import Grid
from minillm.quantization.schemes import ON_THE_FLY

PROMPT = [i * 37 % 16_384 for i in range(1, 17)]
# speed ÷ that of float32: the floor and the goal
DECODE = {"int8": (1.4, 1.55), "w8a8": (1.7, 1.95), "int4": (2.0, 2.35)}
ROWS_64 = {"w8a8": (2.0, 2.0)}


def alternately(
    sides: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each side in each round by `clock`, after one call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            start = clock()
            sides[name]()
            times[name].append(clock() - start)
    return times


def engines_of(folder: Path, device: str) -> dict[str, LLM]:
    """The model in float32 and in each scheme, and a line for each product that was chosen."""
    dense = LLM(folder, device=device, max_num_seqs=1, max_model_len=128, enable_prefix_caching=False)
    engines = {"float32": dense}
    for name in ON_THE_FLY:
        engines[name] = dense.variant(quantization=name, trace=True)
        for choice in engines[name].trace.of(LinearChoice):
            print(f"{choice.scheme} [{choice.size_out}, {choice.size_in}], {choice.rows} rows: {choice.op}")
    return engines


def decode(llm: LLM, num_tokens: int = 24) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True, detokenize=False)
    llm.generate([PROMPT], params, use_tqdm=False)


def products(llm: LLM, num_rows: int) -> Callable[[], None]:
    """The products of a step with `num_rows` rows, without the head, which no scheme quantises."""
    projections: list[Projection] = []
    model = llm.engine.runner.model
    model.with_projections(lambda name, p: projections.append(p) if name != "lm_head" else p)
    config = model.config
    inputs = [torch.randn(num_rows, n) for n in (config.hidden_size, config.q_size, config.intermediate_size)]
    inputs.insert(2, inputs[0])  # qkv, o, gate_up, down

    def run() -> None:
        with torch.inference_mode():
            for i, projection in enumerate(projections):
                projection(inputs[i % 4], model.ops)

    return run


def against_float32(
    what: str, times: dict[str, list[float]], targets: dict[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """A row for the speed of each side ÷ that of float32."""
    rows = []
    for name, seconds in times.items():
        if name != "float32":
            ratio = ratio_of(times["float32"], seconds)
            row = {"name": f"{what}, {name} ÷ float32", "value": ratio.median, "unit": "x"}
            row |= {"low": ratio.low, "high": ratio.high, "rounds": len(seconds)}
            if name in targets:
                row["floor"], row["goal"] = targets[name]
            rows.append(row)
    return rows


def whole_model(folder: Path, args: Any, clock: Callable[[], float]) -> list[dict[str, Any]]:
    engines = engines_of(folder, args.device)
    times = alternately({name: partial(decode, llm) for name, llm in engines.items()}, args.rounds, clock)
    rows: list[dict[str, Any]] = [
        {"name": f"decode, {name}", "value": 24 / spread_of(seconds).median, "unit": "tokens/s"}
        for name, seconds in times.items()
    ]
    rows += against_float32("decode", times, DECODE)
    sides = {name: products(llm, 64) for name, llm in engines.items()}
    return rows + against_float32("all products, 64 rows", alternately(sides, args.rounds, clock), ROWS_64)


def one_matrix(args: Any, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Speed of each INT8 product ÷ that of float32."""
    size_in, size_out = 768, 4096
    weight = torch.randn(size_out, size_in, generator=torch.Generator().manual_seed(0))
    grid = Grid.of(weight, 8)
    packed, dense = grid.pack(grid.round(weight)), weight.t().contiguous()
    rows: list[dict[str, Any]] = []
    for num_rows in quantized.ROWS:
        x = torch.randn(num_rows, size_in, generator=torch.Generator().manual_seed(1))
        calls = max(1, 64 // num_rows)

        def repeated(side: Callable[[], object], calls: int = calls) -> None:
            for _ in range(calls):
                side()

        linear = ops_for(torch.device("cpu")).linear
        sides: dict[str, Callable[[], object]] = {
            "float32": partial(repeated, partial(linear, x, dense, None)),
            "dequantise and multiply": partial(repeated, partial(int8_matmul, x, packed, None)),
        }
        for product in quantized.PRODUCTS["int8"]:
            sides[product.name] = partial(repeated, partial(product.multiply, x, packed))
        with torch.inference_mode():
            times = alternately(sides, args.rounds, clock)
        rows += against_float32(f"768 to 4096, {num_rows} rows", times, {})
    return rows


def main() -> None:
    args = arguments(__doc__, rounds=7, cpu_time=0)
    if args.device != "cpu":
        print("compares products of a CPU; run it with --device cpu")
        raise SystemExit(77)
    clock = time.process_time if args.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        rows = whole_model(llama_100m(Path(folder)), args, clock)
    report(rows + one_matrix(args, clock), args)


if __name__ == "__main__":
    main()

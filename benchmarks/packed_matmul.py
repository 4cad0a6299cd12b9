"""How much faster are products with packed weights than torch's bfloat16 product, at the shapes of an 8B model?

    python benchmarks/packed_matmul.py --device cuda

torch's product is cuBLAS. The shapes are the four projections of Llama 3 8B. W4A16 has groups of 128, and the 8-bit
weights have one scale per row. With 1 to 64 tokens the time depends on the bytes of the weight: a weight of 4 bits with
its scales is 3.88 times smaller. With 2,048 tokens it depends on the tensor cores, and W8A8 uses those for integers.
Every side is a CUDA graph of many calls, on different weights, so that no call finds its weight in the L2 cache. The
sides are measured alternately.
"""

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _graphs import CANNOT_RUN, captured, copies_beyond_cache, refusal
from _rows import arguments, report
from torch import Tensor

from minillm.measure.timing import interleaved, ratio_of, spread_of
from minillm.packed import QuantizedWeight
from minillm.quantization.absmax import PER_CHANNEL, Grid

SHAPES = {
    "qkv": (6_144, 4_096),
    "o": (4_096, 4_096),
    "gate_up": (28_672, 4_096),
    "down": (4_096, 14_336),
}  # out, in
BYTES_PER_TIMING = 20e9  # of the bfloat16 weight: some 5 ms
CALLS_OF_A_PROMPT = 8
# (scheme, tokens): floor and goal of the geometric mean over the shapes
TARGETS: dict[tuple[str, int], tuple[float, float] | None] = {
    ("W4A16", 1): (2.3, 3.0),
    ("W4A16", 16): (1.8, 2.8),
    ("W4A16", 64): (1.0, 1.5),
    ("W8A16", 1): (1.6, 1.8),
    ("W8A16", 16): None,
    ("W8A8", 1): None,
    ("W8A8", 2_048): (1.3, 1.6),
    ("W8A8", 8_192): (1.3, 1.6),
}
Product = Callable[[Tensor, QuantizedWeight, Tensor | None], Tensor]


def kernels() -> dict[str, Product]:
    """The kernels by scheme; not before triton is known to be there."""
    from minillm.kernels.int4_matmul import int4_matmul
    from minillm.kernels.int8_matmul import int8_matmul, w8a8_matmul

    return {"W4A16": int4_matmul, "W8A16": int8_matmul, "W8A8": w8a8_matmul}


def packed(scheme: str, weight: Tensor) -> QuantizedWeight:
    bits, group_size = (4, 128) if scheme == "W4A16" else (8, PER_CHANNEL)
    grid = Grid.of(weight, bits, group_size)
    return grid.pack(grid.round(weight), weight.dtype)


def compare(
    scheme: str, kernel: Product, num_tokens: int, shape: tuple[int, int], rounds: int, device: str
) -> dict[str, list[float]]:
    """Seconds per call of the kernel and of torch in bfloat16. SystemExit if the kernel computes something else."""
    size_out, size_in = shape
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    x = normal(num_tokens, size_in)
    num_bytes = size_out * size_in // (2 if scheme == "W4A16" else 1)
    weights = [normal(size_out, size_in) for _ in range(copies_beyond_cache(num_bytes, device))]
    quantised = [packed(scheme, weight) for weight in weights]
    ours, right = kernel(x, quantised[0], None).float(), F.linear(x, quantised[0].dequantise(x.dtype)).float()
    distance = ((ours - right).norm() / right.norm()).item()
    if not distance <= (2e-2 if scheme == "W8A8" else 1e-2):  # W8A8 rounds x, too
        raise SystemExit(
            f"{scheme} and its dequantised weight differ by {distance:.1e}: no speed is reported"
        )
    calls = CALLS_OF_A_PROMPT if num_tokens > 64 else int(BYTES_PER_TIMING / (2 * size_out * size_in))
    turns = [i % len(weights) for i in range(max(calls, len(weights)))]
    sides = {
        "minillm": captured([partial(kernel, x, quantised[i], None) for i in turns]),
        "cuBLAS": captured([partial(F.linear, x, weights[i]) for i in turns]),
    }
    times = interleaved(sides, rounds, warmup=3, device=device)
    return {side: [time / len(turns) for time in seconds] for side, seconds in times.items()}


def rows_of(scheme: str, num_tokens: int, times: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Microseconds per call and the speed-up for each projection, then the geometric mean of the speed-ups."""
    what = f"{scheme}, {num_tokens} token{'s' * (num_tokens > 1)}"
    rows: list[dict[str, Any]] = []
    ratios = []
    for projection, sides in times.items():
        for side, seconds in sides.items():
            row = {
                "name": f"{what}, {projection}: {side}",
                "value": spread_of(seconds).median * 1e6,
                "unit": "µs",
            }
            rows.append(row)
        ratio = ratio_of(sides["cuBLAS"], sides["minillm"])
        row = {"name": f"{what}, {projection}: minillm / cuBLAS, speed", "value": ratio.median, "unit": "x"}
        rows.append(row | {"low": ratio.low, "high": ratio.high, "rounds": len(sides["minillm"])})
        ratios.append(ratio.median)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    row = {"name": f"{what}: minillm / cuBLAS, geometric mean", "value": mean, "unit": "x"}
    if target := TARGETS[scheme, num_tokens]:
        row |= {"floor": target[0], "goal": target[1]}
    return [*rows, row]


def main() -> int:
    args = arguments(__doc__, device="cuda", rounds=15)
    if reason := refusal(args.device):
        print(reason)
        return CANNOT_RUN
    rows, products = [], kernels()
    for scheme, num_tokens in TARGETS:
        times = {}
        for projection, shape in SHAPES.items():
            times[projection] = compare(scheme, products[scheme], num_tokens, shape, args.rounds, args.device)
            torch.cuda.empty_cache()
        rows += rows_of(scheme, num_tokens, times)
    report(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

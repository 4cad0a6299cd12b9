"""One decode step's matrix products on a CPU: which way is quickest for how many tokens?

    python benchmarks/cpu_linear.py

All weights of a model one after the other, as a step reads them: tinytales' 25, and those of a 88M Llama. `x @ W` is
PyTorch's own (MKL on x86) over [in, out], `F.linear` the same over [out, in]. Split-K, and oneDNN over a packed copy,
are the two ways of `minillm.cpu.linear`; oneDNN without a copy is its way if memory is short. The rows "V" compare
several tokens with one: how much longer does a step take that verifies drafts? The sides alternate; values are medians.
`--cpu-time 1` counts the processor's time.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _rows import arguments, report
from quantized_linear import alternately
from torch import Tensor

from minillm.cpu.linear import Forms, few_rows, is_faster_here, one_dnn, split_k
from minillm.measure.timing import ratio_of, spread_of

MODELS = {
    "tinytales": [(256, 512), (256, 256), (256, 1536), (768, 256)] * 6 + [(256, 4096)],
    "Llama 88M": [(768, 1280), (768, 768), (768, 4096), (2048, 768)] * 12 + [(768, 16_384)],
}


def through(product: Callable[[Tensor, Any], Tensor], inputs: list[Tensor], weights: list[Any]) -> None:
    for x, weight in zip(inputs, weights, strict=True):
        product(x, weight)


def ways(shapes: list[tuple[int, int]]) -> Callable[[int], dict[str, Callable[[], None]]]:
    """The ways to multiply these weights, for a number of tokens."""
    weights = [torch.randn(shape) for shape in shapes]
    forms = [Forms.of_weight(weight) for weight in weights]
    transposed = [weight.t().contiguous() for weight in weights]

    def sides(num_tokens: int) -> dict[str, Callable[[], None]]:
        inputs = [torch.randn(num_tokens, size_in) for size_in, _ in shapes]
        found = {
            "x @ W": partial(through, torch.matmul, inputs, weights),
            "F.linear": partial(through, F.linear, inputs, transposed),
            "oneDNN": partial(through, partial(one_dnn, bias=None), inputs, [f.transposed for f in forms]),
            "oneDNN, packed": partial(through, partial(few_rows, bias=None), inputs, forms),
        }
        if num_tokens == 1:
            found["split-K"] = partial(through, partial(split_k, bias=None), inputs, [f.parts for f in forms])
        return found

    return sides


def ratio_row(name: str, numerator: list[float], denominator: list[float]) -> dict[str, Any]:
    ratio = ratio_of(numerator, denominator)
    bounds = {"low": ratio.low, "high": ratio.high, "rounds": len(numerator)}
    return {"name": name, "value": ratio.median, "unit": "x"} | bounds


def main() -> None:
    args = arguments(__doc__, rounds=15, cpu_time=0)
    if args.device != "cpu" or not is_faster_here():
        print("compares ways of x86 processors; run it on one with --device cpu")
        raise SystemExit(77)
    clock = time.process_time if args.cpu_time else time.perf_counter
    rows: list[dict[str, Any]] = []
    for model, shapes in MODELS.items():
        sides, counts = ways(shapes), (1, 2, 3, 5, 9, 32, 64)
        together = {(n, name): side for n in counts for name, side in sides(n).items()}
        with torch.inference_mode():
            times = alternately(together, args.rounds, clock)
        for (n, name), seconds in times.items():
            what = f"{model}, {n} tokens"
            rows.append({"name": f"{what}, {name}", "value": 1e3 * spread_of(seconds).median, "unit": "ms"})
            if name != "x @ W":
                rows.append(ratio_row(f"{what}, x @ W / {name}", times[n, "x @ W"], seconds))
        rows += [
            ratio_row(f"{model}, V({n}) of {name}", times[n, name], times[1, "split-K"])
            for name in ("x @ W", "oneDNN", "oneDNN, packed")
            for n in counts[1:5]
        ]
    report(rows, args)


if __name__ == "__main__":
    main()

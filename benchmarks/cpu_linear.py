"""One decode step's matrix products on a CPU: which way is quickest for how many tokens?

    python benchmarks/cpu_linear.py

All weights of a model one after the other, as a step reads them: tinytales' 25, and those of a 88M Llama. `x @ W` is
PyTorch's own (MKL on x86) over [in, out], `F.linear` the same over [out, in]; split-K and oneDNN are the two ways of
`minillm.cpu.linear`. The sides alternate; values are medians.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _rows import arguments, report
from torch import Tensor

from minillm.cpu.linear import Views, is_faster_here, one_dnn, split_k
from minillm.measure.timing import interleaved, ratio_of, spread_of

MODELS = {
    "tinytales": [(256, 512), (256, 256), (256, 1536), (768, 256)] * 6 + [(256, 4096)],
    "Llama 88M": [(768, 1280), (768, 768), (768, 4096), (2048, 768)] * 12 + [(768, 16_384)],
}


def through(product: Callable[[Tensor, Any], Tensor], inputs: list[Tensor], weights: list[Any]) -> None:
    for x, weight in zip(inputs, weights, strict=True):
        product(x, weight)


def main() -> None:
    args = arguments(__doc__, rounds=15)
    if args.device != "cpu" or not is_faster_here():
        print("compares ways of x86 processors; run it on one with --device cpu")
        raise SystemExit(77)
    rows: list[dict[str, Any]] = []
    for model, shapes in MODELS.items():
        weights = [torch.randn(shape) for shape in shapes]
        views = [Views.of_weight(weight) for weight in weights]
        transposed = [weight.t().contiguous() for weight in weights]
        for num_tokens in (1, 2, 8, 32, 64):
            inputs = [torch.randn(num_tokens, size_in) for size_in, _ in shapes]
            sides = {
                "x @ W": partial(through, torch.matmul, inputs, weights),
                "F.linear": partial(through, F.linear, inputs, transposed),
                "oneDNN": partial(
                    through, partial(one_dnn, bias=None), inputs, [v.transposed for v in views]
                ),
            }
            if num_tokens == 1:
                sides["split-K"] = partial(
                    through, partial(split_k, bias=None), inputs, [v.parts for v in views]
                )
            with torch.inference_mode():
                times = interleaved(sides, args.rounds)
            what = f"{model}, {num_tokens} tokens"
            for name, seconds in times.items():
                rows.append(
                    {"name": f"{what}, {name}", "value": 1e3 * spread_of(seconds).median, "unit": "ms"}
                )
                ratio = ratio_of(times["x @ W"], seconds)
                rows.append(
                    {"name": f"{what}, x @ W / {name}", "value": ratio.median, "unit": "x"}
                    | {"low": ratio.low, "high": ratio.high, "rounds": args.rounds}
                )
    report([row for row in rows if "x @ W / x @ W" not in row["name"]], args)


if __name__ == "__main__":
    main()

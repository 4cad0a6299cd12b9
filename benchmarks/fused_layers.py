"""How much faster are the fused layers than torch's eager operations, and than the same layers fused by torch.compile?

    python benchmarks/fused_layers.py --device cuda

The layers are RMSNorm with and without the residual, RoPE and SwiGLU of an 8B model in bfloat16. 64 tokens are a decode
step, whose time depends on the number of launches. 8,192 tokens are a prefill, whose time depends on the number of
passes over memory. Every side is a CUDA graph of many calls, on different tensors, so that no call finds its tensors in
the L2 cache. The sides are measured alternately.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _graphs import CANNOT_RUN, captured, copies_beyond_cache, refusal
from _rows import arguments, report
from torch import Tensor

from minillm import ops
from minillm.measure.timing import interleaved, ratio_of, spread_of

HIDDEN, INTERMEDIATE, NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 4_096, 14_336, 32, 8, 128
CALLS = 200  # a timing
Layer = Callable[..., Any]


def kernels() -> dict[str, Layer]:
    """The four operations as kernels, by the names of their definitions in ops.py."""
    from minillm.kernels.rms_norm import add_rms_norm, rms_norm
    from minillm.kernels.rope import rope
    from minillm.kernels.swiglu import swiglu

    return {"rms_norm": rms_norm, "add_rms_norm": add_rms_norm, "rope": rope, "swiglu": swiglu}


def call_of(name: str, num_tokens: int, device: str, seed: int) -> tuple[Any, ...]:
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    match name:
        case "rms_norm":
            return normal(num_tokens, HIDDEN), normal(HIDDEN), 1e-5
        case "add_rms_norm":
            return normal(num_tokens, HIDDEN), normal(num_tokens, HIDDEN), normal(HIDDEN), 1e-5
        case "rope":  # q and k together, a part of the rows that also hold v
            heads = normal(num_tokens, NUM_HEADS + 2 * NUM_KV_HEADS, HEAD_DIM)[:, : NUM_HEADS + NUM_KV_HEADS]
            return heads, normal(num_tokens, 1, HEAD_DIM), normal(num_tokens, 1, HEAD_DIM)
        case "swiglu":
            return (normal(num_tokens, 2 * INTERMEDIATE),)
    raise ValueError(f"no operation is called {name!r}")


def compare(name: str, kernel: Layer, num_tokens: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """Microseconds a call of all three, and how many times faster the kernel is than either of torch's."""
    first = call_of(name, num_tokens, device, 0)
    num_bytes = sum(x.nbytes for x in first if isinstance(x, Tensor))
    inputs = [call_of(name, num_tokens, device, i) for i in range(copies_beyond_cache(num_bytes, device))]
    layers = {
        "minillm": kernel,
        "eager": getattr(ops, name),
        "compiled": torch.compile(getattr(ops, name), dynamic=False),
    }
    outputs = {side: _first(layer(*first)).float() for side, layer in layers.items()}
    for side, out in outputs.items():
        distance = ((out - outputs["eager"]).norm() / outputs["eager"].norm()).item()
        if not distance <= 1e-2:
            raise SystemExit(
                f"{name}: {side} and eager differ by {distance:.1e}: their speeds cannot be compared"
            )
    sides = {
        side: captured([partial(layer, *inputs[i % len(inputs)]) for i in range(CALLS)])
        for side, layer in layers.items()
    }
    times = interleaved(sides, rounds, warmup=3, device=device)
    what = f"{name}, {num_tokens} tokens"
    rows: list[dict[str, Any]] = [
        {"name": f"{what}: {side}", "value": spread_of(seconds).median / CALLS * 1e6, "unit": "µs"}
        for side, seconds in times.items()
    ]
    for side in ("eager", "compiled"):
        ratio = ratio_of(times[side], times["minillm"])
        row = {"name": f"{what}: minillm / {side}, speed", "value": ratio.median, "unit": "x"}
        rows.append(row | {"low": ratio.low, "high": ratio.high, "rounds": rounds})
    return rows


def _first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def main() -> int:
    args = arguments(__doc__, device="cuda", rounds=15)
    if reason := refusal(args.device):
        print(reason)
        return CANNOT_RUN
    rows = []
    for num_tokens in (64, 8_192):
        for name, kernel in kernels().items():
            rows += compare(name, kernel, num_tokens, args.rounds, args.device)
            torch.cuda.empty_cache()
    report(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

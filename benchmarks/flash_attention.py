"""How fast is a prompt's attention, compared with torch's fastest backends? The same tensors, in one process.

    python benchmarks/flash_attention.py --device cuda

The benchmark runs the causal forward pass in bfloat16: 32 heads that share 8 KV heads, head_dim 128, 16,384 tokens in
sequences of 4k, 8k and 16k. torch's `scaled_dot_product_attention` uses one backend at a time: FlashAttention-2, then
cuDNN. Each timing covers several calls, on different tensors, so that no call finds its tensors in the L2 cache. The
sides are measured alternately. TFLOP/s count only the two matrix products of the pairs that the mask allows.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from _rows import arguments, report
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minillm.measure.timing import device_name, interleaved, ratio_of, spread_of

CANNOT_RUN = 77  # benchmarks/gpu.py takes it for "skipped"
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 32, 8, 128
NUM_TOKENS, LENGTHS = 16_384, (4_096, 8_192, 16_384)
CALLS = 8  # a timing: enough that the GPU is never kept waiting for Python
BACKENDS = {"FlashAttention-2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
# floor and goal of our speed over theirs
LIMITS = {"FlashAttention-2": (1.15, 1.5), "cuDNN": (0.70, 0.95)}

Inputs = tuple[Tensor, Tensor, Tensor]
Attention = Callable[[Tensor, Tensor, Tensor], Any]


def inputs(batch: int, length: int, device: str) -> list[Inputs]:
    """As many q, k, v [B, S, H, D] as it takes to pass by twice the L2 cache, and at least two."""
    size = 2 * batch * length * (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    generator = torch.Generator(device).manual_seed(0)

    def normal(heads: int) -> Tensor:
        shape = (batch, length, heads, HEAD_DIM)
        return torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)

    return [
        (normal(NUM_HEADS), normal(NUM_KV_HEADS), normal(NUM_KV_HEADS))
        for _ in range(max(2, 2 * cache // size + 1))
    ]


def pinned(backend: SDPBackend) -> Attention:
    """torch's attention by one backend alone: it raises where that one cannot."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            out = F.scaled_dot_product_attention(
                q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
            )
        return out.transpose(1, 2)

    return attention


def in_turn(attention: Attention, tensors: list[Inputs]) -> Callable[[], None]:
    def calls() -> None:
        for i in range(CALLS):
            attention(*tensors[i % len(tensors)])

    return calls


def repeated(tensors: list[Inputs]) -> list[Inputs]:
    """Each KV head once for every query head that it serves: for a backend that cannot share them."""
    group = NUM_HEADS // NUM_KV_HEADS
    return [(q, k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)) for q, k, v in tensors]


def refusal(attention: Attention, tensors: Inputs) -> str:
    """Empty, or why this backend cannot take these tensors."""
    try:
        attention(*tensors)
    except RuntimeError as problem:
        return str(problem).splitlines()[0]
    return ""


def sides(tensors: list[Inputs], backends: Mapping[str, SDPBackend]) -> dict[str, Callable[[], None]]:
    """Ours, and every backend that can: each attends `CALLS` times. SystemExit if one computes something else."""
    from minillm.kernels.flash_attention import flash_attention  # not before triton is known to be there

    ours = flash_attention(*tensors[0]).float()
    found = {"minillm": in_turn(flash_attention, tensors)}
    for name, backend in backends.items():
        attention, theirs = pinned(backend), tensors
        if refusal(attention, theirs[0]):
            theirs = repeated(tensors)  # before the clock starts: the copy is no part of their time
        if reason := refusal(attention, theirs[0]):
            print(f"torch's {name} cannot run this: {reason}")
            continue
        right = attention(*theirs[0]).float()
        distance = ((ours - right).norm() / right.norm()).item()
        if not distance <= 1e-2:
            raise SystemExit(f"minillm and {name} differ by {distance:.1e}: their speeds cannot be compared")
        found[name] = in_turn(attention, theirs)
    return found


def compare(
    tensors: list[Inputs], rounds: int, device: str, backends: Mapping[str, SDPBackend] = BACKENDS
) -> list[dict[str, Any]]:
    """TFLOP/s of every side, and ours over each of theirs."""
    batch, length = tensors[0][0].shape[:2]
    what = f"{batch} x {length}"
    times = interleaved(sides(tensors, backends), rounds, warmup=3, device=device)
    flops = CALLS * 4 * batch * NUM_HEADS * HEAD_DIM * length * (length + 1) / 2
    rows: list[dict[str, Any]] = [
        {"name": f"{what}: {name}", "value": flops / spread_of(seconds).median / 1e12, "unit": "TFLOP/s"}
        for name, seconds in times.items()
    ]
    for name in backends:
        if name in times:
            ratio = ratio_of(times[name], times["minillm"])
            floor, goal = LIMITS[name]
            rows.append(
                {"name": f"{what}: minillm / {name}", "value": ratio.median, "unit": "x", "rounds": rounds}
                | {"low": ratio.low, "high": ratio.high, "floor": floor, "goal": goal}
            )
    return rows


def main() -> int:
    args = arguments(__doc__, device="cuda", rounds=15)
    if not args.device.startswith("cuda") or not torch.cuda.is_available():
        print(
            f"needs a CUDA device: asked for {args.device}, and torch {torch.__version__} sees "
            f"{torch.cuda.device_count()}"
        )
        return CANNOT_RUN
    if torch.cuda.get_device_capability(args.device) < (8, 0):
        print(f"needs sm_80 or newer, and {device_name(args.device)} is older")
        return CANNOT_RUN
    rows = []
    for length in LENGTHS:
        rows += compare(inputs(NUM_TOKENS // length, length, args.device), args.rounds, args.device)
        torch.cuda.empty_cache()
    report(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

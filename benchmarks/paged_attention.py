"""How fast is attention in a decode step, compared with the memory bandwidth and with torch on contiguous memory?

    python benchmarks/paged_attention.py --device cuda

Each request has one query. There are 32 heads that share 8 KV heads, head_dim is 128, and blocks of 16 tokens are in
random order. Decoding reads every key and value once and computes very little. So the result is the bytes of KV per
second divided by the bandwidth of a plain copy or read (the higher of the two), measured in the same rounds.

torch's `scaled_dot_product_attention` gets the same keys and values in contiguous tensors. It uses one backend at a
time, once with the heads of a KV head as that head's queries and once with `enable_gqa`; the fastest counts. Every side
is a CUDA graph of about 10 ms of calls, on different tensors, so that no call finds its tensors in the L2 cache. The
sides are measured alternately.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _graphs import CANNOT_RUN, bandwidth_sides, captured, copies_beyond_cache, refusal
from _rows import arguments, report
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from minillm.batch import Batch, Chunk
from minillm.layer_kv import LayerKV
from minillm.measure.timing import interleaved, ratio_of, spread_of

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE = 32, 8, 128, 16
BYTES_PER_TIMING = 40e9  # some 10 ms
BUFFER_BYTES = 2**30
BACKENDS = {
    "FlashAttention-2": SDPBackend.FLASH_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
}
Case = tuple[Tensor, Tensor, Tensor, Batch]


def case(num_requests: int, length: int, device: str, seed: int) -> Case:
    """q [R, H, D], k and v caches [blocks, 16, H_kv, D] in bfloat16, and a decode batch over blocks in random order."""
    per_request = length // BLOCK_SIZE
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randperm(num_requests * per_request, generator=generator).view(num_requests, per_request)
    batch = Batch.of([Chunk([0], length - 1, row) for row in tables.tolist()], BLOCK_SIZE, device)
    on_device = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=on_device, device=device, dtype=torch.bfloat16)

    cache = (num_requests * per_request, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM)
    return normal(num_requests, NUM_HEADS, HEAD_DIM), normal(*cache), normal(*cache), batch


def contiguous(cases: list[Case]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """The same keys and values as torch likes them best: q [R, H, 1, D], k and v [R, H_kv, S, D], no blocks."""
    found = []
    for q, k_cache, v_cache, batch in cases:
        tables = batch.block_tables.long()
        k, v = (x[tables].flatten(1, 2).transpose(1, 2).contiguous() for x in (k_cache, v_cache))
        found.append((q[:, :, None], k, v))
    return found


def heads_as_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The heads that share a KV head become its queries: nothing is masked, so nothing is lost. [R, H, 1, D]."""
    grouped = q.view(q.shape[0], NUM_KV_HEADS, NUM_HEADS // NUM_KV_HEADS, HEAD_DIM)
    return F.scaled_dot_product_attention(grouped, k, v).reshape(q.shape)


def heads_shared(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def torch_sides(cases: list[Case], repeats: int) -> dict[str, Callable[[], None]]:
    """Every backend of torch's that can, in both forms. SystemExit if one computes something else than ours."""
    from minillm.kernels.paged_attention import paged_attention  # not before triton is known to be there

    tensors, found = contiguous(cases), {}
    q, k, v, batch = cases[0]
    ours = paged_attention(q, LayerKV(k, v), batch, None).float()
    for name, backend in BACKENDS.items():
        for form in (heads_as_queries, heads_shared):

            def attend(q: Tensor, k: Tensor, v: Tensor, form: Any = form, backend: Any = backend) -> Tensor:
                with sdpa_kernel(backend):
                    return form(q, k, v)

            label = f"torch's {name}, {form.__name__.replace('_', ' ')}"
            try:
                theirs = attend(*tensors[0])[:, :, 0].float()
            except RuntimeError as problem:
                print(f"{label} cannot run this: {str(problem).splitlines()[0]}")
                continue
            distance = ((ours - theirs).norm() / theirs.norm()).item()
            if not distance <= 1e-2:
                raise SystemExit(
                    f"minillm and {label} differ by {distance:.1e}: their speeds cannot be compared"
                )
            found[label] = captured([partial(attend, *tensors[i % len(tensors)]) for i in range(repeats)])
    return found


def quantised(case: Case) -> LayerKV:
    """Return the case's cache in int8, written by `write_kv` itself."""
    from minillm.kernels.cache_write import write_kv

    _, k, v, _ = case
    kv = LayerKV.empty(tuple(k.shape), torch.int8, k.device)
    slots = torch.arange(k.shape[0] * BLOCK_SIZE, device=k.device)
    write_kv(k.flatten(0, 1), v.flatten(0, 1), kv, slots)
    return kv


def compare(num_requests: int, length: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """KV bytes per second of ours in bfloat16 and int8, of torch's backends, of a read and a copy; and the ratios."""
    from minillm.kernels.paged_attention import paged_attention

    num_bytes = 2 * 2 * num_requests * length * NUM_KV_HEADS * HEAD_DIM  # K and V, two bytes each
    cases = [
        case(num_requests, length, device, seed) for seed in range(copies_beyond_cache(num_bytes, device))
    ]
    repeats = max(len(cases), int(BYTES_PER_TIMING / num_bytes))

    def calls(caches: list[LayerKV]) -> Callable[[], None]:
        steps = [(q, kv, batch, None) for (q, _, _, batch), kv in zip(cases, caches, strict=True)]
        return captured([partial(paged_attention, *steps[i % len(steps)]) for i in range(repeats)])

    sides = {
        "minillm": calls([LayerKV(k, v) for _, k, v, _ in cases]),
        "minillm int8": calls([quantised(one) for one in cases]),
        **bandwidth_sides(BUFFER_BYTES, int(BYTES_PER_TIMING / BUFFER_BYTES), device),
    }
    others = torch_sides(cases, repeats)
    times = interleaved(sides | others, rounds, warmup=3, device=device)
    return rows_of(times, list(others), num_bytes * repeats, num_requests, length)


def rows_of(
    times: dict[str, list[float]], others: list[str], num_bytes: float, num_requests: int, length: int
) -> list[dict[str, Any]]:
    """Bandwidths in GB/s, then the ratios that have a floor."""
    what = f"decode, batch {num_requests} x {length}"
    moved = dict.fromkeys(times, num_bytes)
    moved["minillm int8"] = num_bytes / 2 * (1 + 4 / HEAD_DIM)  # a float32 scale for each HEAD_DIM bytes
    moved |= dict.fromkeys(("read", "copy"), BUFFER_BYTES * int(BYTES_PER_TIMING / BUFFER_BYTES))
    rates = {name: moved[name] / spread_of(seconds).median / 1e9 for name, seconds in times.items()}
    rows: list[dict[str, Any]] = [
        {"name": f"{what}: {name}", "value": rate, "unit": "GB/s"} for name, rate in rates.items()
    ]
    roof = max(rates["read"], rates["copy"])
    limits = {(32, 8_192): (0.85, 0.95), (1, 32_768): (0.65, 0.80)}.get((num_requests, length))
    rows.append({"name": f"{what}: minillm / bandwidth", "value": rates["minillm"] / roof, "unit": "x"})
    if limits:
        rows[-1] |= {"floor": limits[0], "goal": limits[1]}
    ratios = []
    if others:
        best = min(others, key=lambda name: spread_of(times[name]).median)
        limits_of_speed = {"floor": 1.0, "goal": 1.2}
        ratios.append(("minillm / torch's best", ratio_of(times[best], times["minillm"]), limits_of_speed))
    if length >= 16_384:
        limits_of_time = {"ceiling": 0.62, "goal": 0.54}
        ratios.append(
            ("time in int8 / bfloat16", ratio_of(times["minillm int8"], times["minillm"]), limits_of_time)
        )
    for name, ratio, bounds in ratios:
        row = {"name": f"{what}: {name}", "value": ratio.median, "unit": "x", **bounds}
        rows.append(row | {"low": ratio.low, "high": ratio.high, "rounds": len(times["minillm"])})
    return rows


def main() -> int:
    args = arguments(__doc__, device="cuda", rounds=15)
    if reason := refusal(args.device):
        print(reason)
        return CANNOT_RUN
    rows = []
    for num_requests, length in [(32, 8_192), (1, 32_768), (16, 16_384), (1, 1_024)]:
        rows += compare(num_requests, length, args.rounds, args.device)
        torch.cuda.empty_cache()
    report(rows, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())

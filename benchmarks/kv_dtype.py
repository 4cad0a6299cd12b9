"""What does a quantised KV cache cost in time at a context of 4,096 tokens?

    python benchmarks/kv_dtype.py

One layer of a decode step, with the heads of a Llama of 88M parameters, for one request and for four. The blocks are
scattered. A cache of int8 or fp8 holds a quarter of the bytes of float32, but the CPU must convert each number that it
reads. The sides run alternately; the result is the median. `--cpu-time 1` counts the processor's time.
"""

import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from _rows import arguments, report
from quantized_linear import alternately
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.layer_kv import LayerKV
from minillm.measure.timing import ratio_of, spread_of
from minillm.ops import ops_for

HEADS, KV_HEADS, D, BLOCK, CONTEXT = 12, 4, 64, 16, 4096
DTYPES = {"float32": torch.float32, "int8": torch.int8, "fp8": torch.float8_e4m3fn}


def decode_step(num_requests: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], Tensor], int]:
    """Attention of a step over a cache in `dtype`, and the bytes of the cache."""
    ops = ops_for(torch.device(device))
    blocks = np.random.default_rng(0).permutation(num_requests * CONTEXT // BLOCK).astype(np.int32)
    tables = [array("i", table.tolist()) for table in blocks.reshape(num_requests, -1)]
    batch = Batch.of([Chunk([0], CONTEXT - 1, table) for table in tables], BLOCK, device)
    kv = LayerKV.empty((len(blocks), BLOCK, KV_HEADS, D), dtype, device)
    k, v, q = (
        torch.randn(n, heads, D, device=device)
        for n, heads in (
            (blocks.size * BLOCK, KV_HEADS),
            (blocks.size * BLOCK, KV_HEADS),
            (num_requests, HEADS),
        )
    )
    ops.write_kv(k, v, kv, torch.arange(blocks.size * BLOCK, device=device))
    return partial(ops.paged_attention, q, kv, batch, None), sum(tensor.nbytes for tensor in kv.tensors)


def main() -> None:
    args = arguments(__doc__, rounds=15, cpu_time=0)
    if args.device != "cpu":
        print("compares caches of a CPU; run it with --device cpu")
        raise SystemExit(77)
    clock = time.process_time if args.cpu_time else time.perf_counter
    rows: list[dict[str, Any]] = []
    for num_requests in (1, 4):
        steps = {name: decode_step(num_requests, dtype, args.device) for name, dtype in DTYPES.items()}
        times = alternately({name: step for name, (step, _) in steps.items()}, args.rounds, clock)
        what = f"{num_requests} x {CONTEXT:,} tokens"
        for name, seconds in times.items():
            rows.append({"name": f"{what}, {name}", "value": 1e3 * spread_of(seconds).median, "unit": "ms"})
            if name != "float32":
                ratio = ratio_of(times["float32"], seconds)
                rows.append(
                    {"name": f"{what}, speed of {name} ÷ float32", "value": ratio.median, "unit": "x"}
                    | {"low": ratio.low, "high": ratio.high, "rounds": args.rounds}
                )
                size = steps[name][1] / steps["float32"][1]
                rows.append({"name": f"{what}, bytes of {name} ÷ float32", "value": size, "unit": "x"})
    report(rows, args)


if __name__ == "__main__":
    main()

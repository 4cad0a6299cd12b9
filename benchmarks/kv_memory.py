"""How much of the KV cache's memory holds no token? Contiguous rows, and blocks of several sizes, same requests.

    python benchmarks/kv_memory.py

The requests run in the real engine with a trace; in each step the memory that running requests hold is compared with
the tokens that they have. A row is held whole for as long as its request runs; of blocks at most the last is partly
empty. Counts, not times: every machine prints the same.
"""

from typing import Any

import numpy as np
from _rows import arguments, report

from minillm import LLM, SamplingParams
from minillm.measure.trace import StepRecord, Trace

CONTEXT = 1024


def wasted(trace: Trace, block_size: int) -> tuple[float, float]:
    """The share of held memory without a token, over all steps, and the mean length of the sequences in it."""
    held = used = parts = 0
    for step in trace.of(StepRecord):
        for part in step.scheduled:
            held += len(part.blocks) * block_size
            used += part.num_computed_tokens + part.num_tokens
            parts += 1
    return 1 - used / held, used / parts


def main() -> None:
    args = arguments(__doc__, requests=24)
    random = np.random.default_rng(0)
    prompts = [random.integers(1, 4096, random.integers(250, 600)).tolist() for _ in range(args.requests)]
    params = [
        SamplingParams(temperature=0.0, max_tokens=int(n), ignore_eos=True, detokenize=False)
        for n in random.integers(16, 160, args.requests)
    ]
    base = LLM("tinytales", device=args.device, max_model_len=CONTEXT, max_num_seqs=8)
    rows: list[dict[str, Any]] = []
    for name, changes, size in (
        ("contiguous rows of 1,024", {"kv_cache": "contiguous"}, CONTEXT),
        ("blocks of 256", {"block_size": 256}, 256),
        ("blocks of 16", {"block_size": 16}, 16),
        ("blocks of 1", {"block_size": 1}, 1),
    ):
        with base.variant(trace=True, enable_prefix_caching=False, **changes) as llm:
            llm.generate(prompts, params)
            share, mean = wasted(llm.trace, size)
        limit = {"ceiling": 0.04} if size == 16 else {}
        rows.append(
            {
                "name": f"{name}: wasted, sequences of {mean:.0f} tokens on average",
                "value": share,
                "unit": "share",
            }
            | limit
        )
    report(rows, args)


if __name__ == "__main__":
    main()

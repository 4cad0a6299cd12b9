"""Long prompts arrive while others decode: how long does the next token of a running request take, at worst?

    python benchmarks/chunked_prefill.py

Eight requests decode, and prompts of 768 tokens arrive at steps that a seed fixes. Each running request waits for one
step until its next token. Without chunks, a whole prompt is computed in one step. With chunks, no step computes more
than `--budget` tokens. The result is the 99th percentile of the inter-token latencies, measured alternately.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from _rows import arguments, report

from minillm import LLM, SamplingParams
from minillm.measure.timing import spread_of
from minillm.measure.trace import inter_token_latencies

DECODING, LONG, NUM_LONG = 8, 768, 12


def latencies(llm: LLM, arrivals: list[int], num_tokens: int, shift: int) -> np.ndarray[Any, Any]:
    """Inter-token latencies in seconds of the requests that decode all along."""
    llm.trace.clear()
    greedy = partial(SamplingParams, temperature=0.0, ignore_eos=True, detokenize=False)
    watched = [
        llm.engine.add_request([1 + i] * 16, greedy(max_tokens=num_tokens)).request_id
        for i in range(DECODING)
    ]
    step, waiting = 0, list(arrivals)
    while llm.engine.has_unfinished:
        while waiting and waiting[0] <= step:
            prompt = [(shift + 31 * step + i) % 4095 + 1 for i in range(LONG)]
            llm.engine.add_request(prompt, greedy(max_tokens=1))
            waiting.pop(0)
        llm.engine.step()
        step += 1
    found = inter_token_latencies(llm.trace)
    return np.concatenate([found[name] for name in watched])


def main() -> None:
    args = arguments(__doc__, budget=128, tokens=200, rounds=5)
    random = np.random.default_rng(0)
    arrivals = sorted(random.choice(args.tokens - 60, NUM_LONG, replace=False).tolist())
    base = LLM("tinytales", device=args.device, max_num_seqs=32, max_model_len=1024, trace=True)
    sides: dict[str, Callable[[int], Any]] = {}
    for name, changes in (
        ("chunked", {"max_num_batched_tokens": args.budget}),
        ("unchunked", {"max_num_batched_tokens": 4096, "enable_chunked_prefill": False}),
    ):
        llm = base.variant(**changes, enable_prefix_caching=False)
        sides[name] = partial(latencies, llm, arrivals, args.tokens)
    p50: dict[str, list[float]] = {name: [] for name in sides}
    p99: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(args.rounds + 1):
        for name, run in list(sides.items())[:: 1 if round_ % 2 else -1]:
            found = run(97 * round_)
            if round_:  # the first is the warm-up
                p50[name].append(float(np.percentile(found, 50)))
                p99[name].append(float(np.percentile(found, 99)))
    rows: list[dict[str, Any]] = []
    for name in sides:
        rows.append(
            {
                "name": f"{name}: inter-token latency, median",
                "value": 1e3 * spread_of(p50[name]).median,
                "unit": "ms",
            }
        )
        rows.append(
            {
                "name": f"{name}: inter-token latency, p99",
                "value": 1e3 * spread_of(p99[name]).median,
                "unit": "ms",
            }
        )
    ratios = [a / b for a, b in zip(p99["chunked"], p99["unchunked"], strict=True)]
    ratio = spread_of(ratios)
    rows.append(
        {
            "name": f"p99, chunks within {args.budget} tokens / whole prompts of {LONG}",
            "value": ratio.median,
            "unit": "x",
        }
        | {"ceiling": 0.5, "low": ratio.low, "high": ratio.high, "rounds": args.rounds}
    )
    report(rows, args)


if __name__ == "__main__":
    main()

"""How much time does a cached prefix save, and how much does the lookup cost if no prefix is cached?

    python benchmarks/prefix_caching.py

32 requests arrive together and begin with the same 512 tokens. The first measurement is their time to first token, with
the prefix in the cache and with prefix caching off. The second uses prompts that share nothing, with prefix caching on
and off. It is the cost of hashing without a hit.
"""

import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from _rows import arguments, report

from minillm import LLM, SamplingParams
from minillm.measure.timing import interleaved, ratio_of

random = np.random.default_rng(0)


def prompt(num_tokens: int) -> list[int]:
    return random.integers(1, 4096, num_tokens).tolist()


def ttft(llm: LLM, prompts: list[list[int]]) -> float:
    """Seconds from arrival to first token, median over the requests."""
    params = SamplingParams(temperature=0.0, max_tokens=1, detokenize=False)
    times = [output.metrics for output in llm.generate(prompts, params)]
    return statistics.median(m.first_token_ts - m.queued_ts for m in times)


def shared_prefix(base: LLM, rounds: int, num_requests: int) -> Any:
    """Primed over off: each round brings new prefixes, which a lone request has computed before."""
    primed, off = base.variant(enable_prefix_caching=True), base.variant(enable_prefix_caching=False)
    times: dict[str, list[float]] = {"primed": [], "off": []}
    for round_ in range(rounds + 1):
        prefix = prompt(512)
        prompts = [prefix + prompt(16) for _ in range(num_requests)]
        primed.generate([prefix + prompt(16)], SamplingParams(max_tokens=1))
        sides = [("primed", primed), ("off", off)]
        for name, llm in sides if round_ % 2 else sides[::-1]:
            seconds = ttft(llm, prompts)
            if round_:  # the first is the warm-up
                times[name].append(seconds)
    return ratio_of(times["primed"], times["off"])


def no_hits(base: LLM, rounds: int, num_requests: int) -> Any:
    """On over off, where no prompt is like another: generation included."""
    fresh = count(1)
    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True, detokenize=False)

    def side(llm: LLM) -> Callable[[], object]:
        return lambda: llm.generate(
            [[next(fresh) % 4095 + 1, *prompt(255)] for _ in range(num_requests)], params
        )

    sides = {name: side(base.variant(enable_prefix_caching=name == "on")) for name in ("on", "off")}
    # Known prefixes are kept, so each run writes other blocks until the pool has been written once.
    times = interleaved(sides, rounds, warmup=5)
    return ratio_of(times["on"], times["off"])


def hashing(num_tokens: int) -> float:
    """Seconds to hash a prompt's blocks: what a miss costs before anything is computed."""
    from minillm.cache.prefix import PrefixCache

    cache, tokens = PrefixCache(16), prompt(num_tokens)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        cache.extend([], tokens)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    args = arguments(__doc__, requests=32, rounds=7)
    base = LLM("tinytales", device=args.device, max_num_seqs=args.requests, max_model_len=1024)
    hit, miss = shared_prefix(base, args.rounds, args.requests), no_hits(base, args.rounds, args.requests)
    spread = {"rounds": args.rounds}
    rows: list[dict[str, Any]] = [
        {
            "name": f"{args.requests} requests, 512 shared tokens: TTFT primed / off",
            "value": hit.median,
            "unit": "x",
        }
        | {"ceiling": 0.25, "low": hit.low, "high": hit.high}
        | spread,
        {
            "name": f"{args.requests} requests, nothing shared: time on / off",
            "value": miss.median,
            "unit": "x",
        }
        | {"ceiling": 1.02, "low": miss.low, "high": miss.high}
        | spread,
        {"name": "hashing a prompt of 1,024 tokens", "value": 1e6 * hashing(1024), "unit": "us"},
    ]
    report(rows, args)


if __name__ == "__main__":
    main()

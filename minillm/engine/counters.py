"""Counters: what an engine has done so far, as plain numbers that never grow in memory.

A trace (measure/trace.py) keeps every step. A server runs for weeks, so it counts instead. Only the thread that steps
the engine writes. Other threads may read at any time, because each counter is a single number.

Source: the histograms and their buckets are those of vLLM (`v1/metrics/loggers.py`).
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field


class Histogram:
    """Counts values in buckets. Bucket i has the values up to `bounds[i]`, and the last one has the rest."""

    def __init__(self, *bounds: float) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class EngineCounters:
    """Totals since the engine started. Times are in seconds.

    `prefix_cache_queries` and `prefix_cache_hits` count prompt tokens that were looked up and found. `finished` counts
    samples by finish reason. `num_drafts` counts the verifications of one or more draft tokens.
    """

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)
    time_to_first_token: Histogram = field(
        default_factory=lambda: Histogram(
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
            80.0, 160.0, 640.0, 2560.0,
        )
    )  # fmt: skip
    inter_token_latency: Histogram = field(
        default_factory=lambda: Histogram(
            0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0
        )
    )  # fmt: skip
    e2e_request_latency: Histogram = field(
        default_factory=lambda: Histogram(
            0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
            960.0, 1920.0, 7680.0,
        )
    )  # fmt: skip

"""Metrics: the engines' counters in the text format of Prometheus, under vLLM's names.

Nothing is measured here. Each read of `/metrics` asks the engines for the numbers that they have counted anyway
(engine/counters.py), so a server that is not observed pays nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from minillm.engine.counters import Histogram
from minillm.serving.registry import Registry, Replica

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_LABELS = ["model_name", "engine"]

_GAUGES: dict[str, tuple[str, Callable[[Replica], float]]] = {
    "num_requests_running": ("Requests that the engine computes.", lambda r: r.num_running),
    "num_requests_waiting": ("Requests that wait to be computed.", lambda r: r.num_waiting),
    "kv_cache_usage_perc": (
        "Share of the KV cache that requests hold; 1 is all.",
        lambda r: r.kv_cache_usage,
    ),
}
_COUNTERS: dict[str, tuple[str, Callable[[Replica], float]]] = {
    "prefix_cache_queries": ("Prompt tokens looked up.", lambda r: r.counters.prefix_cache_queries),
    "prefix_cache_hits": ("Prompt tokens found.", lambda r: r.counters.prefix_cache_hits),
    "num_preemptions": ("Preempted requests.", lambda r: r.counters.preemptions),
    "prompt_tokens": ("Prompt tokens computed.", lambda r: r.counters.prompt_tokens),
    "generation_tokens": ("Tokens generated.", lambda r: r.counters.generation_tokens),
}
_SPECULATION: dict[str, tuple[str, Callable[[Replica], float]]] = {
    "spec_decode_num_drafts": ("Verifications of drafts.", lambda r: r.counters.num_drafts),
    "spec_decode_num_draft_tokens": ("Draft tokens verified.", lambda r: r.counters.num_draft_tokens),
    "spec_decode_num_accepted_tokens": (
        "Draft tokens accepted.",
        lambda r: r.counters.num_accepted_tokens,
    ),
}
_HISTOGRAMS: dict[str, tuple[str, Callable[[Replica], Histogram]]] = {
    "time_to_first_token_seconds": (
        "From arrival to the first token.",
        lambda r: r.counters.time_to_first_token,
    ),
    "inter_token_latency_seconds": (
        "Between the tokens of a request.",
        lambda r: r.counters.inter_token_latency,
    ),
    "e2e_request_latency_seconds": (
        "From arrival to the last token.",
        lambda r: r.counters.e2e_request_latency,
    ),
}


class EngineCollector:
    """Reads the replicas of a registry whenever Prometheus asks."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        replicas = list(self._registry)
        drafting = [one for one in replicas if one.llm.config.speculation is not None]
        yield from _each(GaugeMetricFamily, _GAUGES, replicas)
        yield from _each(CounterMetricFamily, _COUNTERS, replicas)
        if drafting:
            yield from _each(CounterMetricFamily, _SPECULATION, drafting)
        finished = CounterMetricFamily(
            "vllm:request_success", "Samples that ended.", labels=[*_LABELS, "finished_reason"]
        )
        for replica in replicas:
            for reason in ("stop", "length", "abort", "error"):
                finished.add_metric([*_labels(replica), reason], replica.counters.finished[reason])
        yield finished
        for name, (words, histogram_of) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"vllm:{name}", words, labels=_LABELS)
            for replica in replicas:
                one = histogram_of(replica)
                histogram.add_metric(_labels(replica), _buckets(one), one.total)
            yield histogram


def exposition(registry: Registry) -> Callable[[], bytes]:
    """Return a function that writes all metrics as text."""
    collectors = CollectorRegistry()
    collectors.register(EngineCollector(registry))
    return lambda: generate_latest(collectors)


def _each(
    family: Any, table: dict[str, tuple[str, Callable[[Replica], float]]], replicas: Iterable[Replica]
) -> Iterator[Metric]:
    for name, (words, value_of) in table.items():
        metric = family(f"vllm:{name}", words, labels=_LABELS)
        for replica in replicas:
            metric.add_metric(_labels(replica), value_of(replica))
        yield metric


def _labels(replica: Replica) -> list[str]:
    return [replica.name, str(replica.index)]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative counts, each with the upper bound of its bucket."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(map(float, histogram.counts)), strict=True))

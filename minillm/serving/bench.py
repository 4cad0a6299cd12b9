"""Measure a running OpenAI server: how fast it answers, under which load.

Two kinds of load. In an open loop, requests arrive at random times at a given rate, whether or not the server keeps up:
the gaps between them are exponential, a Poisson process. In a closed loop, N clients each send their next request when
the last one is answered, so a slow server gets fewer requests. Only an open loop shows a queue that grows without end.

A latency counts from the time at which the request should have been sent. A client that falls behind would otherwise
leave out the time that its requests waited (Tene, "How NOT to measure latency", 2015).

Definitions, as in vLLM's benchmark: TTFT is the time to the first text. ITL is the time between two pieces of text.
TPOT is the time per output token after the first. Goodput counts requests per second with TTFT and TPOT within given
limits (Zhong et al., "DistServe", 2024, section 2).
"""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minillm.errors import MinillmError
from minillm.serving.streamed import Answer, ask

PERCENTILES = (50, 90, 99)
FIRST_ID, NUM_IDS = 100, 150  # random prompts use these token ids, which vocabularies of bytes and more have


class BenchError(MinillmError):
    """A server that cannot be measured."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Describes the requests of one run. Give `rate` (requests per second) or `concurrency` (clients), not both.

    `rate` may be infinite: all requests arrive at once. A prompt is text or token ids. Answers are greedy and have
    `output_len` tokens, because the end token is ignored. `timeout` is seconds per request.
    """

    url: str
    model: str
    prompts: Sequence[str | Sequence[int]]
    output_len: int = 64
    rate: float | None = None
    concurrency: int | None = None
    api_key: str | None = None
    timeout: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url={self.url!r}: give the server's address, such as http://127.0.0.1:8000")
        if (self.rate is None) == (self.concurrency is None):
            raise ValueError("give --rate (open loop) or --concurrency (closed loop), and not both")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate={self.rate}: give requests per second above 0")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"concurrency={self.concurrency}: give at least 1 client")
        if not self.prompts:
            raise ValueError("there are no prompts: give at least 1 request")
        if self.output_len < 1:
            raise ValueError(f"output_len={self.output_len}: give at least 1 token")

    def body(self, prompt: str | Sequence[int]) -> dict[str, Any]:
        """Return the JSON body of one request."""
        fixed = {"max_tokens": self.output_len, "temperature": 0, "ignore_eos": True}
        return {"model": self.model, "prompt": prompt, **fixed}


@dataclass(frozen=True, kw_only=True)
class Slo:
    """A service level objective: the largest TTFT and TPOT of a good request, in seconds."""

    ttft: float = float("inf")
    tpot: float = float("inf")

    def holds(self, answer: Answer) -> bool:
        return answer.error is None and answer.ttft <= self.ttft and answer.tpot <= self.tpot


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The mean and percentiles of one quantity, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Summary | None":
        """Return the summary of these times, or None if there are none."""
        if not seconds:
            return None
        return cls(
            mean=1e3 * statistics.fmean(seconds),
            **{f"p{percent}": 1e3 * percentile(seconds, percent) for percent in PERCENTILES},
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """The figures of one run. Latencies are those of complete answers, in milliseconds; rates are per second.

    `errors` counts the other requests by what went wrong. `goodput` is None without an objective.
    """

    num_requests: int
    num_completed: int
    seconds: float
    requests_per_second: float
    output_tokens_per_second: float
    num_prompt_tokens: int
    num_output_tokens: int
    goodput: float | None
    ttft: Summary | None
    itl: Summary | None
    tpot: Summary | None
    latency: Summary | None
    errors: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, answers: Sequence[Answer], seconds: float, slo: Slo | None = None) -> "Report":
        done = [answer for answer in answers if answer.error is None]
        num_output_tokens = sum(answer.num_output_tokens for answer in done)
        return cls(
            num_requests=len(answers),
            num_completed=len(done),
            seconds=seconds,
            requests_per_second=len(done) / seconds,
            output_tokens_per_second=num_output_tokens / seconds,
            num_prompt_tokens=sum(answer.num_prompt_tokens for answer in done),
            num_output_tokens=num_output_tokens,
            goodput=None if slo is None else sum(map(slo.holds, done)) / seconds,
            ttft=Summary.of([answer.ttft for answer in done]),
            itl=Summary.of([gap for answer in done for gap in answer.gaps]),
            tpot=Summary.of([answer.tpot for answer in done if answer.num_output_tokens > 1]),
            latency=Summary.of([answer.latency for answer in done]),
            errors=dict(Counter(answer.error for answer in answers if answer.error is not None)),
        )

    def table(self) -> str:
        """Return the report as text for a terminal."""
        lines = [
            f"{self.num_completed} of {self.num_requests} requests in {self.seconds:.2f} s",
            *(f"  {count} failed: {error}" for error, count in self.errors.items()),
            f"{self.requests_per_second:.2f} requests/s, {self.output_tokens_per_second:.1f} output tokens/s",
        ]
        if self.goodput is not None:
            lines.append(f"goodput {self.goodput:.2f} requests/s")
        lines.append(f"{'ms':<10}" + "".join(f"{name:>10}" for name in ("mean", "p50", "p90", "p99")))
        for name, found in (
            ("TTFT", self.ttft),
            ("ITL", self.itl),
            ("TPOT", self.tpot),
            ("latency", self.latency),
        ):
            if found is not None:
                lines.append(f"{name:<10}" + "".join(f"{value:>10.2f}" for value in asdict(found).values()))
        return "\n".join(lines)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` % of `values` do not exceed (the nearest rank)."""
    ranked = sorted(values)
    rank = -(-len(ranked) * percent // 100)
    return ranked[max(0, int(rank) - 1)]


def arrivals(rate: float, count: int, seed: int = 0) -> Iterator[float]:
    """Yield the arrival times of a Poisson process with `rate` per second, in seconds; the first is 0."""
    draw, now = random.Random(seed), 0.0
    for _ in range(count):
        yield now
        now += draw.expovariate(rate)


def random_prompts(count: int, length: int, seed: int = 0) -> list[list[int]]:
    """Return prompts of `length` random token ids. They share no beginning, so no prefix cache helps."""
    if length < 1:
        raise ValueError(f"input_len={length}: give at least 1 token")
    draw = random.Random(seed)
    return [[FIRST_ID + draw.randrange(NUM_IDS) for _ in range(length)] for _ in range(count)]


async def measure(load: Load) -> tuple[list[Answer], float]:
    """Send all requests, and return their answers in the order of the prompts, and the seconds that the run took.

    One request comes before the others and does not count. If it fails, raises `BenchError`.
    """
    await _warm_up(load)
    start = time.perf_counter()
    answers = await (_open_loop(load, start) if load.rate is not None else closed_loop(load))
    return answers, max(answer.ended for answer in answers) - start


async def _warm_up(load: Load) -> None:
    answer = await _ask(load, load.prompts[0], time.perf_counter())
    if answer.error is not None:
        raise BenchError(
            f"the first request to {load.url} for the model {load.model!r} failed ({answer.error}): "
            f"look at {load.url}/v1/models for the models that run there"
        )


async def _open_loop(load: Load, start: float) -> list[Answer]:
    assert load.rate is not None

    async def at(arrival: float, prompt: str | Sequence[int]) -> Answer:
        await asyncio.sleep(start + arrival - time.perf_counter())
        return await _ask(load, prompt, start + arrival)

    times = arrivals(load.rate, len(load.prompts), load.seed)
    return await asyncio.gather(*map(at, times, load.prompts))


async def closed_loop(load: Load) -> list[Answer]:
    """Send the requests from `load.concurrency` clients, and return their answers in the order of the prompts."""
    assert load.concurrency is not None
    answers: dict[int, Answer] = {}
    numbered = iter(enumerate(load.prompts))

    async def client() -> None:
        for number, prompt in numbered:
            answers[number] = await _ask(load, prompt, time.perf_counter())

    await asyncio.gather(*(client() for _ in range(load.concurrency)))
    return [answers[number] for number in range(len(load.prompts))]


async def _ask(load: Load, prompt: str | Sequence[int], sent: float) -> Answer:
    headers = {"Authorization": f"Bearer {load.api_key}"} if load.api_key else {}
    return await ask(load.url, load.body(prompt), sent, timeout=load.timeout, headers=headers)


def save(report: Report, load: Load, path: Path) -> None:
    """Write the report and the load as JSON; prompts are only counted."""
    described = {
        name: getattr(load, name) for name in ("url", "model", "output_len", "rate", "concurrency", "seed")
    }
    path.write_text(json.dumps({"load": described, **asdict(report)}, indent=2) + "\n", encoding="utf-8")


def plot(answers: Sequence[Answer], path: Path, slo: Slo | None = None) -> None:
    """Draw TTFT over the time of arrival, and the shares of inter-token latencies. Raises `BenchError` without
    matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BenchError("--plot needs matplotlib: pip install 'minillm[course]'") from error
    done = [answer for answer in answers if answer.error is None]
    start = min(answer.sent for answer in answers)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([a.sent - start for a in done], [1e3 * a.ttft for a in done], ".")
    left.set(xlabel="arrival (s)", ylabel="TTFT (ms)", ylim=(0, None))
    gaps = sorted(1e3 * gap for answer in done for gap in answer.gaps)
    right.plot(gaps, [(i + 1) / len(gaps) for i in range(len(gaps))])
    right.set(xlabel="inter-token latency (ms)", ylabel="share of tokens", ylim=(0, 1))
    if slo is not None and slo.ttft < float("inf"):
        left.axhline(1e3 * slo.ttft, linestyle="--", color="gray")
    if slo is not None and slo.tpot < float("inf"):
        right.axvline(1e3 * slo.tpot, linestyle="--", color="gray")
    figure.savefig(path, dpi=150)

"""How much of a decode step do the scheduler and the building of the batch take?

    python benchmarks/scheduling.py

There are three measurements: a step of `tinytales` with 64 running requests; the scheduler alone with 256 requests,
which hold many or few blocks; and steps with the trace on and off, alternately.
"""

import statistics
import time
from array import array
from typing import Any

from _rows import arguments, report

from minillm import LLM, SamplingParams
from minillm.batch import Batch, Chunk
from minillm.cache.manager import KVCacheManager
from minillm.cache.prefix import PrefixCache
from minillm.engine.request import Status
from minillm.engine.scheduler import Scheduler
from minillm.measure.timing import Spread, ratio_of
from minillm.measure.trace import Trace


class Running:
    """A decoding request, with the attributes that the scheduler reads."""

    def __init__(self, number: int, num_tokens: int) -> None:
        self.token_ids = [number] * num_tokens
        self.arrival, self.priority, self.may_hit = (number, 0), 0, False
        self.num_computed_tokens = self.num_cached_tokens = self.num_preemptions = 0
        self.status, self.block_table, self.block_hashes = Status.WAITING, array("i"), []

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)


def decoding(num_requests: int, num_tokens: int) -> Scheduler:
    """A scheduler whose requests have all been admitted and computed but for their last token."""
    memory = KVCacheManager(num_requests * (num_tokens // 16 + 2), 16, PrefixCache(16))
    scheduler = Scheduler(memory, num_requests, num_requests * num_tokens)
    for number in range(num_requests):
        scheduler.add(Running(number, num_tokens))  # type: ignore[arg-type]
    for request, wanted in scheduler.schedule():
        request.num_computed_tokens = wanted - 1
    return scheduler


def microseconds(call: Any, rounds: int = 200) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def build(scheduler: Scheduler) -> None:
    """The batch of one step, as the runner builds it."""
    chunks = [Chunk(r.token_ids[-1:], r.num_computed_tokens, r.block_table) for r in scheduler.running]
    Batch.of(chunks, 16)


def step_shares(num_steps: int) -> dict[str, float]:
    """Seconds of a step's parts, medians over decode steps of 64 requests."""
    llm = LLM("tinytales", max_model_len=512, trace=True)
    params = SamplingParams(temperature=0.0, max_tokens=num_steps, ignore_eos=True, detokenize=False)
    llm.generate([[1 + i] * 24 for i in range(64)], params)
    steps = [s for s in llm.trace if getattr(s, "scheduled", None) and s.num_tokens("decode") == 64]
    return {
        "schedule": statistics.median(step.phases.schedule for step in steps),
        "step": statistics.median(step.end - step.start for step in steps),
    }


def trace_cost(rounds: int, num_steps: int) -> Spread:
    """A decode step of 32 requests with the trace over one without: of two neighbours in the same run, one has it, as a
    machine changes its pace from run to run by more than the trace costs."""
    llm = LLM("tinytales", max_model_len=512)
    engine, trace = llm.engine, Trace()
    params = SamplingParams(temperature=0.0, max_tokens=num_steps + 1, ignore_eos=True, detokenize=False)
    times: dict[bool, list[float]] = {True: [], False: []}  # the median step of each round
    for _ in range(rounds):
        steps: dict[bool, list[float]] = {True: [], False: []}
        for i in range(32):
            engine.add_request([1 + i] * 24, params)
        engine.step()  # the prompts
        traced = True
        while engine.has_unfinished:
            engine.trace = trace if traced else None
            start = time.perf_counter()
            engine.step()
            steps[traced].append(time.perf_counter() - start)
            traced = not traced
        for side, seconds in steps.items():
            times[side].append(statistics.median(seconds))
    assert trace
    return ratio_of(times[True], times[False])


def main() -> None:
    args = arguments(__doc__, steps=48, trace_steps=240, rounds=9)
    if args.device != "cpu":
        print("measures the host's work; run it with --device cpu")
        raise SystemExit(77)
    shares, few, many = step_shares(args.steps), decoding(256, 64), decoding(256, 2048)
    running = decoding(64, 256)
    batch, traced = microseconds(lambda: build(running)), trace_cost(args.rounds, args.trace_steps)
    rows: list[dict[str, Any]] = [
        {"name": "64 requests: schedule", "value": 1e6 * shares["schedule"], "unit": "us"},
        {"name": "64 requests: build the batch", "value": batch, "unit": "us"},
        {"name": "64 requests: a step", "value": 1e6 * shares["step"], "unit": "us"},
        {
            "name": "64 requests: schedule and build, of a step",
            "value": (shares["schedule"] + batch / 1e6) / shares["step"],
            "unit": "share",
            "ceiling": 0.05,
        },
        {
            "name": "256 requests: schedule",
            "value": microseconds(few.schedule),
            "unit": "us",
            "ceiling": 1000.0,
        },
        {
            "name": "256 requests: schedule and build with 128 blocks each / with 4",
            "value": (microseconds(many.schedule) + microseconds(lambda: build(many), 50))
            / (microseconds(few.schedule) + microseconds(lambda: build(few), 50)),
            "unit": "x",
        },
        {"name": "32 requests: traced / untraced", "value": traced.median, "unit": "x", "ceiling": 1.02}
        | {"low": traced.low, "high": traced.high, "rounds": args.rounds},
    ]
    report(rows, args)


if __name__ == "__main__":
    main()

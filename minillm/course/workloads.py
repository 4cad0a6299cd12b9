"""The requests that chapters measure: story openings, output lengths that spread, arrivals at random times."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from minillm.llm import LLM
from minillm.player.recording import Recording
from minillm.sampling import SamplingParams
from minillm.viz.player import record

OPENINGS = (
    "Once upon a time",
    "The old lighthouse keeper",
    "Hello, my name is Anna, and I",
    "It was raining when the bus stopped",
    "In a small village by the sea there lived a girl who collected shells. Every morning, before anyone else was "
    "awake, she walked down to the beach with",
    "My grandmother's clock",
    "Why do birds sing",
    "On Monday morning the baker",
    "A very small dragon",
    "The last train",
    "Deep in the forest, far from every road,",
    "Dear Tom, you will not believe what",
    "There was a knock at the door. It was late, and it had been raining all day. We never had a visitor at that "
    "hour, so my brother and I",
    "The queen had lost",
    "At night the robot",
    "Far away on an island lived a girl who",
)


def requests(number: int, mean: float, longest: int, seed: int = 8) -> tuple[list[str], list[int]]:
    """Return story openings, and for each the length of its output: exponential, cut off at `longest` tokens."""
    rng = random.Random(seed)
    lengths = [min(longest, 1 + int(rng.expovariate(1 / mean))) for _ in range(number)]
    return [OPENINGS[i % len(OPENINGS)] for i in range(number)], lengths


def greedy(lengths: Sequence[int]) -> list[SamplingParams]:
    """Return sampling parameters under which each output has exactly its length."""
    return [SamplingParams(max_tokens=n, temperature=0, ignore_eos=True) for n in lengths]


def run(llm: LLM, prompts: Sequence[str], lengths: Sequence[int], **engine: Any) -> Recording:
    """Return the recording of these requests, all waiting at the start, under these engine arguments.

    The prefix cache is off unless asked for, so that equal prompts cost the same.
    """
    with llm.variant(**{"trace": True, "enable_prefix_caching": False, **engine}) as other:
        other.generate(list(prompts[:1]), greedy([2]))  # the first steps of a process are slow
        other.trace.clear()
        other.generate(list(prompts), greedy(lengths))
        recording = record(other)
        recording.extend()
        return recording


@dataclass
class Served:
    """One request under load. Times are seconds from the start of the load."""

    arrival: float
    token_times: list[float] = field(default_factory=list)

    @property
    def ttft(self) -> float:
        """Return the time to first token, in seconds since the arrival of the request."""
        return self.token_times[0] - self.arrival

    @property
    def gaps(self) -> list[float]:
        """Return the inter-token latencies: the seconds between one token and the next."""
        return [later - earlier for earlier, later in pairwise(self.token_times)]


def poisson_arrivals(number: int, rate: float, seed: int = 0) -> list[float]:
    """Return arrival times in seconds of requests that come at random, `rate` per second on average."""
    rng, now, times = random.Random(seed), 0.0, []
    for _ in range(number):
        now += rng.expovariate(rate)
        times.append(now)
    return times


def serve(
    llm: LLM, prompts: Sequence[Sequence[int]], lengths: Sequence[int], arrivals: Sequence[float]
) -> list[Served]:
    """Send each prompt at its arrival time, and return when its tokens came."""
    served = [Served(arrival) for arrival in arrivals]
    todo = list(zip(served, prompts, greedy(lengths), strict=True))
    live: list[tuple[Served, Any]] = []
    began = time.perf_counter()
    while todo or llm.engine.has_unfinished:
        now = time.perf_counter() - began
        while todo and todo[0][0].arrival <= now:
            one, prompt, params = todo.pop(0)
            live.append((one, llm.engine.add_request(prompt, params)))
        if not llm.engine.has_unfinished:
            time.sleep(max(0.0, todo[0][0].arrival - now))
            continue
        llm.engine.step()
        now = time.perf_counter() - began
        for one, output in live:
            one.token_times += [now] * (len(output.outputs[0].token_ids) - len(one.token_times))
        live = [(one, output) for one, output in live if not output.finished]
    return served

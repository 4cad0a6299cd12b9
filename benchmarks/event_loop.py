"""How long is the event loop blocked while 32 streams arrive? A ticker measures the longest gap.

    python benchmarks/event_loop.py

The ticker is a coroutine that sleeps for 1 ms, again and again. If a sleep takes longer, the rest is a gap, in which a
server on the same event loop answers no request. The ticker first runs alone, because the machine delays it too. Then
`--requests` calls of `LLM.astream` arrive, one every `--interval` seconds, with prompts of about 200 tokens.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable
from typing import Any

from _rows import arguments, report

from minillm import LLM, SamplingParams

TICK = 1e-3  # seconds
STORY = "The little fox ran down to the river and asked the old frog for help. " * 12


async def longest_gap(work: Awaitable[object]) -> tuple[float, float]:
    """Return the longest gap of the ticker while `work` runs, and the time that `work` takes, in seconds."""
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(TICK)
            gaps.append(time.perf_counter() - start - TICK)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    start = time.perf_counter()
    await work
    seconds = time.perf_counter() - start
    await asyncio.sleep(2 * TICK)  # or a gap that lasts until the end is not seen
    ticker.cancel()
    return max(gaps), seconds


async def streams(llm: LLM, prompts: list[str], interval: float, params: SamplingParams) -> None:
    """Read one stream for each prompt. Each starts `interval` seconds after the one before it."""

    async def one(number: int, prompt: str) -> None:
        await asyncio.sleep(number * interval)
        async for _ in llm.astream(prompt, params):
            pass

    await asyncio.gather(*(one(number, prompt) for number, prompt in enumerate(prompts)))


async def measure(
    llm: LLM, rounds: int, requests: int, interval: float, tokens: int
) -> dict[str, list[float]]:
    """Return, for each round, the longest gap of the idle machine and of the streams, and the streams' time."""
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    found: dict[str, list[float]] = {"idle": [], "streams": [], "seconds": []}
    await streams(llm, [STORY], interval, params)  # the first request also pays for what is made once
    for number in range(rounds):
        # No prompt is found in the prefix cache: each begins with a text of its own.
        prompts = [f"Story {number * requests + i}. {STORY}" for i in range(requests)]
        gap, seconds = await longest_gap(streams(llm, prompts, interval, params))
        idle, _ = await longest_gap(asyncio.sleep(seconds))
        for name, value in (("idle", idle), ("streams", gap), ("seconds", seconds)):
            found[name].append(value)
    return found


def main() -> None:
    args = arguments(__doc__, requests=32, interval=0.01, tokens=32, rounds=5)
    with LLM("tinytales", device=args.device, max_model_len=512) as llm:
        found = asyncio.run(measure(llm, args.rounds, args.requests, args.interval, args.tokens))
    beyond = [gap - idle for gap, idle in zip(found["streams"], found["idle"], strict=True)]
    what = f"{args.requests} streams arrive"
    rows: list[dict[str, Any]] = []
    for name, seconds, limits in (
        ("the machine is idle: longest gap", found["idle"], {}),
        (f"{what}: longest gap", found["streams"], {}),
        (f"{what}: longest gap beyond the idle machine's", beyond, {"ceiling": 30}),
        (f"{what}: time until the last one ends", found["seconds"], {}),
    ):
        values = [1e3 * value for value in seconds]
        rows.append(
            {"name": name, "value": statistics.median(values), "unit": "ms", **limits}
            | {"low": min(values), "high": max(values), "rounds": args.rounds}
        )
    report(rows, args)


if __name__ == "__main__":
    main()

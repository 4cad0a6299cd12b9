"""Timing that can be believed: warm up, wait for the device, repeat, interleave, and say on what machine.

A GPU runs behind the program that feeds it, so a clock read without waiting times the queue. And a computer
drifts (clocks, heat, neighbours), so two things are compared only when they were measured by turns.
"""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Spread:
    """A median, and the lowest and highest value seen: a quartile of a few rounds would claim too much."""

    median: float
    low: float
    high: float


def synchronize(device: torch.device | str) -> None:
    """Wait until `device` has done all the work given to it. A CPU always has."""
    device = torch.device(device)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def times_of(
    fn: Callable[[], object], *, rounds: int, warmup: int = 1, device: torch.device | str = "cpu"
) -> list[float]:
    """Seconds of each of `rounds` calls, after `warmup` uncounted ones.

    On CUDA the clock is the GPU's own (events in the stream), so that neither the launch nor the wait is in
    the figure when the GPU is kept busy.
    """
    device = torch.device(device)
    for _ in range(warmup):
        fn()
    synchronize(device)
    if device.type == "cuda":
        return _event_times(fn, rounds, device)
    return [_wall_time(fn, device) for _ in range(rounds)]


def median_of(
    fn: Callable[[], object], *, rounds: int = 7, warmup: int = 1, device: torch.device | str = "cpu"
) -> Spread:
    """Median, shortest and longest time of a call, in seconds."""
    return spread_of(times_of(fn, rounds=rounds, warmup=warmup, device=device))


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Wall-clock seconds of each side in each round, the sides measured by turns: A B, B A, A B, ...

    Drift then falls on all sides alike; turning the order about cancels what is linear in it.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(warmup):
        for fn in sides.values():
            fn()
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            times[name].append(_wall_time(sides[name], torch.device(device)))
        order.reverse()
    return times


def ratio_of(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """`numerator` over `denominator`: the ratio of their medians, and the extremes of single rounds.

    Both come from `interleaved`, round by round. The ratio of medians always lies between the lowest and the
    highest ratio of a round. Raises ValueError if the numbers of rounds differ.
    """
    rounds = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return Spread(statistics.median(numerator) / statistics.median(denominator), min(rounds), max(rounds))


def spread_of(values: Sequence[float]) -> Spread:
    """Median, lowest and highest of `values`."""
    return Spread(statistics.median(values), min(values), max(values))


def device_name(device: torch.device | str) -> str:
    """What the machine is called: the GPU, or the CPU's model and the threads torch uses on it."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'s' * (threads != 1)}"


def machine_record(device: torch.device | str = "cpu") -> dict[str, str | int | None]:
    """What a result file says about where it was made. Plain values, ready for JSON."""
    return {
        "machine": device_name(device),
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _wall_time(fn: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    fn()
    synchronize(device)
    return time.perf_counter() - start


def _event_times(fn: Callable[[], object], rounds: int, device: torch.device) -> list[float]:
    with torch.cuda.device(device):
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for start, end in events:
            start.record()
            fn()
            end.record()
        torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def _cpu_model() -> str:
    """The processor's marketing name, from wherever this system keeps it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    return platform.processor() or platform.machine()

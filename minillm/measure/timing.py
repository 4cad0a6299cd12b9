"""Reliable timing: warm up, wait for the device, repeat, interleave, and record the machine.

A GPU runs its work later than the program submits it, so a clock that is read without waiting measures the submission.
The speed of a computer also drifts with its clock rate, its temperature and other programs. So two sides are compared
only if they were measured alternately.
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
    """A median with the lowest and highest value. A few rounds are too few for quartiles."""

    median: float
    low: float
    high: float


def synchronize(device: torch.device | str) -> None:
    """Wait until `device` has finished all its work. A CPU always has."""
    device = torch.device(device)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def times_of(
    fn: Callable[[], object], *, rounds: int, warmup: int = 1, device: torch.device | str = "cpu"
) -> list[float]:
    """Return the seconds of each of `rounds` calls, after `warmup` calls that do not count.

    On CUDA the GPU takes the time (events in the stream). The times then include neither the launch nor the wait, as
    long as the GPU has enough work queued.
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
    """Return the median, shortest and longest time of a call, in seconds."""
    return spread_of(times_of(fn, rounds=rounds, warmup=warmup, device=device))


def interleaved(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, list[float]]:
    """Return the wall-clock seconds of each side in each round, measured alternately: A B, B A, A B, ...

    Slow periods of the machine then affect all sides equally. Reversing the order cancels linear drift.
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
    """Return `numerator` over `denominator`: the ratio of their medians, and the lowest and highest ratio of a round.

    Both come from `interleaved`, round by round. The ratio of the medians always lies between the lowest and the
    highest ratio of a round. Raises ValueError if the numbers of rounds differ.
    """
    rounds = [a / b for a, b in zip(numerator, denominator, strict=True)]
    return Spread(statistics.median(numerator) / statistics.median(denominator), min(rounds), max(rounds))


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median, lowest and highest of `values`."""
    return Spread(statistics.median(values), min(values), max(values))


def device_name(device: torch.device | str) -> str:
    """Return the machine's name: the GPU, or the CPU's model and the number of threads that torch uses."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'s' * (threads != 1)}"


def machine_record(device: torch.device | str = "cpu") -> dict[str, str | int | None]:
    """Return the description of this machine for a result file, as plain values for JSON."""
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
    """Return the processor's marketing name, as this system reports it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True).strip()
    return platform.processor() or platform.machine()


def factor_text(factor: float | None) -> str:
    """Return a speed-up as it is shown. Below 1 it has two digits, so that a loss is never rounded to 1."""
    if factor is None:
        return ""
    return f"×{factor:.1f}" if factor >= 1 else f"×{min(factor, 0.99):.2f}"

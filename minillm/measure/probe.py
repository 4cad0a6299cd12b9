"""Measure this machine's roofs in about four seconds: how fast it reads, copies and multiplies.

Bandwidth is measured with a buffer too large for any cache. Each byte read and each byte written counts, as in STREAM
(McCalpin 1995). The matmul rate is that of the largest square product that the time allows. Its right side is
transposed, like the weight of a linear layer. float32 follows torch's setting: exact IEEE unless TF32 was allowed.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import torch

from minillm.measure.machine import MOST_SCATTER, Machine
from minillm.measure.timing import Spread, device_name, median_of

MATMUL_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
_SECONDS_PER_FIGURE = 0.3
_ATTEMPTS = 3  # at most, for a figure that scatters
_BUFFER_BYTES = 2**30  # eight times a B200's L2, and more than twice the L3 of almost every server


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measure_machine(device: torch.device | str | None = None) -> Machine:
    """Return the figures of `device` (by default the GPU if there is one), each a median with its spread.

    A dtype that the device cannot multiply is absent from `matmul_rate`. Another program that runs at the same time
    lowers the figures and scatters them: such a figure is measured again, and the steadiest of three attempts is
    kept. If it still scatters, it is one of `Machine.doubtful`. Raises ValueError for a device that is neither a CPU
    nor CUDA.
    """
    device = default_device() if device is None else torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"cannot measure {device}: only cpu and cuda are supported")
    memory = _memory_bytes(device)
    bandwidths = _bandwidths(device, min(_BUFFER_BYTES, memory // 8))
    rates = {
        str(dtype).removeprefix("torch."): _matmul_rate(dtype, device) for dtype in _multipliable(device)
    }
    return Machine(
        name=device_name(device),
        device=device.type,
        read_bandwidth=bandwidths["read"].median,
        copy_bandwidth=bandwidths["copy"].median,
        matmul_rate={name: rate.median for name, rate in rates.items()},
        memory_bytes=memory,
        measured=True,
        source=f"measured on {datetime.now(UTC):%Y-%m-%d} with torch {torch.__version__}",
        spread={name: (figure.low, figure.high) for name, figure in (bandwidths | rates).items()},
    )


def _bandwidths(device: torch.device, num_bytes: int) -> dict[str, Spread]:
    """Return the bytes per second of reading a buffer, and of copying one half of it to the other."""
    # Write ones, because pages that were never written all map to the same page of zeros.
    buffer = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    first, second = buffer.chunk(2)
    return {
        "read": _rate(buffer.nbytes, buffer.sum, device),
        "copy": _rate(first.nbytes + second.nbytes, partial(second.copy_, first), device),
    }


def _multipliable(device: torch.device) -> list[torch.dtype]:
    """Return the dtypes that this device can multiply, found by trying each."""
    able = []
    for dtype in MATMUL_DTYPES:
        small = _matrix(64, dtype, device)
        try:
            _multiply(small, small)
        except RuntimeError:
            continue
        able.append(dtype)
    return able


def _matmul_rate(dtype: torch.dtype, device: torch.device) -> Spread:
    """Return the FLOP per second of the largest square matmul that the time allows; a small one uses only a part."""
    for size in (512, 1024, 2048, 4096, 8192):
        multiply = partial(_multiply, _matrix(size, dtype, device), _matrix(size, dtype, device))
        seconds = median_of(multiply, rounds=1, device=device).median
        # A matmul of twice the size is eight times the work, and it must run three times.
        if 3 * 8 * seconds > _SECONDS_PER_FIGURE:
            break
    return _rate(2 * size**3, multiply, device)


def _matrix(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return a random `[size, size]` matrix. With zeros a GPU draws less power and runs at unrealistic clock rates."""
    if dtype == torch.int8:
        return torch.randint(-128, 128, (size, size), dtype=dtype, device=device)
    return torch.randn(size, size, dtype=dtype, device=device)


def _multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a @ b.T; int8 is accumulated and returned in int32."""
    return torch._int_mm(a, b.t()) if a.dtype == torch.int8 else a @ b.t()


def _rate(work: float, fn: Callable[[], object], device: torch.device) -> Spread:
    """Return `work` per second of `fn`, over as many rounds as the time allows, 3 to 30: the steadiest attempt."""
    attempts: list[Spread] = []
    while len(attempts) < _ATTEMPTS:
        once = median_of(fn, rounds=1, device=device).median
        rounds = min(30, max(3, int(_SECONDS_PER_FIGURE / once)))
        seconds = median_of(fn, rounds=rounds, device=device)
        attempts.append(Spread(work / seconds.median, work / seconds.high, work / seconds.low))
        if attempts[-1].high <= MOST_SCATTER * attempts[-1].low:
            break
    return min(attempts, key=lambda attempt: attempt.high / attempt.low)


def _memory_bytes(device: torch.device) -> int:
    """Return the physical memory of the device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if sys.platform == "win32":
        kib = ctypes.c_ulonglong()
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kib))
        return kib.value * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

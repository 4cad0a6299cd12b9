"""The most memory that a piece of work needed at one time.

CUDA: torch's allocator keeps the peak of the bytes it handed out, exactly (memory mapped past it, as in
`cache/virtual.py`, is not in it). CPU: the kernel keeps the peak of the process's resident set (VmHWM in
/proc/self/status) and forgets it when told to (a 5 in /proc/self/clear_refs; man 5 proc). A thread that
polls the resident set was the other choice: it misses what lives for less than its period.

How exact is that on a CPU? For one tensor, 0.15 MiB (Linux counts pages core by core and may be 128 KiB a core
behind). But the resident set is what the process holds, and glibc serves blocks of up to 32 MiB from a heap in
which freed ones leave holes that the next do not fit: a loop with 10 MiB of tensors alive at a time held 260.
So measure memory in a process of its own that first calls `return_freed_memory_at_once`: that loop then
measures 9.6, in its first round 11.2: the first run of anything also loads its code and starts its threads.
Time is measured in another process, as this one allocates more slowly.
"""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_M_MMAP_THRESHOLD = -3  # from <malloc.h>


class NoCounterError(NotImplementedError):
    """This system, or the device, does not count its memory."""


@dataclass(slots=True)
class PeakMemory:
    """Bytes in use on entry, and the most in use since. `peak` is final when the `with` block ends."""

    before: int
    peak: int

    @property
    def added(self) -> int:
        """Bytes that the work needed beyond what was there already."""
        return self.peak - self.before


# There is one counter in a process (or on a GPU), so an inner measurement that resets it would cut off an
# outer one. Each reset therefore first credits the peak so far to all that are open.
_open: dict[torch.device, list[PeakMemory]] = {}


@contextmanager
def peak_memory(device: torch.device | str = "cpu") -> Iterator[PeakMemory]:
    """Measure the peak inside a `with` block, in bytes. Blocks may nest, but not run in several threads.

    On a CPU it is the whole process's resident memory, with the error described above; file-mapped weights
    count once they are touched.
    Raises `NoCounterError` where the system has no such counter (macOS, Windows, some sandboxes), and for
    other devices than CPU and CUDA.
    """
    device = _one_device(device)
    measurements = _open.setdefault(device, [])
    if measurements:
        _credit(measurements, device)
    if device.type == "cpu":
        trim_heap()
    _reset_peak(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else rss_bytes()
    measurement = PeakMemory(before, before)
    measurements.append(measurement)
    try:
        yield measurement
    finally:
        _credit(measurements, device)
        measurements.pop()


def return_freed_memory_at_once() -> None:
    """From now on give each block of 128 KiB or more its own pages, which go back when it is freed (man mallopt).

    This is how a process starts; glibc raises the threshold to the size of each block that is freed, up to
    32 MiB, unless it is set by hand. Call it before the first large tensor is freed: holes that the heap has
    already remain. Raises `NoCounterError` where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_M_MMAP_THRESHOLD, 128 * 1024):
        raise NoCounterError("the allocator's threshold can be set in glibc only, which is not in use here")


def rss_bytes() -> int:
    """Bytes of this process that are in physical memory now. Raises `NoCounterError` outside Linux."""
    return _status_bytes("VmRSS")


def available_bytes() -> int:
    """Memory of this machine that can be had without swapping; where that is not told, all of it."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _one_device(device: torch.device | str) -> torch.device:
    """The device by its full name: "cuda" and "cuda:0" share a counter."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise NoCounterError(f"peak memory of {device}: only cpu and cuda are known here")
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def _credit(measurements: list[PeakMemory], device: torch.device) -> None:
    """Give the peak since the last reset to every open measurement."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status_bytes("VmHWM")
    for measurement in measurements:
        measurement.peak = max(measurement.peak, peak)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR_REFS.write_text("5")
    except OSError as error:
        raise NoCounterError(f"peak memory of a CPU is measured through {_CLEAR_REFS}: {error}") from error


def _status_bytes(field: str) -> int:
    """A size from /proc/self/status, which gives it in KiB: "VmRSS:     1234 kB"."""
    if not _STATUS.exists():
        raise NoCounterError(f"resident memory is read from {_STATUS}, which {sys.platform} does not have")
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise NoCounterError(f"{_STATUS} has no {field} here")


def trim_heap() -> None:
    """Make the resident set what is in use: collect garbage, give back what the C library has in reserve."""
    gc.collect()
    # Without this a tensor may measure 0 after another of its size: it fits into what that has left behind.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)

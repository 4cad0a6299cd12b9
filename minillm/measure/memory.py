"""Measure peak memory: the most memory that a piece of work needs at one time.

On CUDA, torch's allocator keeps the exact peak of the bytes that it allocated. Memory mapped without this allocator, as
in `cache/virtual.py`, is not counted. On a CPU, the Linux kernel keeps the peak of the process's resident set (VmHWM in
/proc/self/status), and a 5 written to /proc/self/clear_refs resets it (man 5 proc). The alternative, a thread that
polls the resident set, misses memory that lives for less than its period.

On a CPU the error is 0.15 MiB for one tensor, because Linux counts pages on each core and may be behind by 128 KiB per
core. The heap adds a larger error. glibc takes blocks of up to 32 MiB from a heap, and freed blocks leave holes that
the next blocks do not fit into. A loop with 10 MiB of live tensors had a resident set of 260 MiB. So measure memory in
a separate process that first calls `return_freed_memory_at_once`. The same loop then needs 9.6 MiB, and 11.2 MiB in its
first round, which also loads code and starts threads. Measure time in another process, because this one allocates more
slowly.
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
    """Raised if this system or device has no counter for its memory."""


@dataclass(slots=True)
class PeakMemory:
    """Bytes in use on entry, and the most in use since. `peak` is final when the `with` block ends."""

    before: int
    peak: int

    @property
    def added(self) -> int:
        """Return the bytes that the work needed in addition to those in use on entry."""
        return self.peak - self.before


# There is only one counter per process (or GPU), so an inner measurement that resets it would hide the peak of an
# outer one. Each reset therefore first credits the peak so far to all open measurements.
_open: dict[torch.device, list[PeakMemory]] = {}


@contextmanager
def peak_memory(device: torch.device | str = "cpu") -> Iterator[PeakMemory]:
    """Measure the peak inside a `with` block, in bytes. Blocks may nest, but not run in several threads.

    On a CPU this is the whole process's resident memory, with the error described above. File-mapped weights count
    after they are touched. Raises `NoCounterError` if the system has no such counter (macOS, Windows, some sandboxes),
    and for devices other than CPU and CUDA.
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
    """Give each new block of 128 KiB or more its own pages, which are returned when it is freed (man mallopt).

    A process starts in this state, but glibc raises the threshold to the size of each freed block, up to 32 MiB, unless
    a program sets it. Call this function before the first large tensor is freed, because existing holes in the heap
    remain. Raises `NoCounterError` if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_M_MMAP_THRESHOLD, 128 * 1024):
        raise NoCounterError(
            "only glibc can set the allocator's threshold, and this system does not use glibc"
        )


def rss_bytes() -> int:
    """Return the bytes of this process that are now in physical memory. Raises `NoCounterError` except on Linux."""
    return _status_bytes("VmRSS")


def available_bytes() -> int:
    """Return the bytes of memory that this machine can give without swapping, or all its memory if that is unknown."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _one_device(device: torch.device | str) -> torch.device:
    """Return the device with its index, because "cuda" and "cuda:0" share a counter."""
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise NoCounterError(f"cannot measure the peak memory of {device}: only cpu and cuda are supported")
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
        raise NoCounterError(
            f"cannot measure the peak memory of a CPU, which needs to write to {_CLEAR_REFS}: {error}"
        ) from error


def _status_bytes(field: str) -> int:
    """Return a size in bytes from /proc/self/status, which has it in KiB: "VmRSS:     1234 kB"."""
    if not _STATUS.exists():
        raise NoCounterError(f"resident memory is read from {_STATUS}, which {sys.platform} does not have")
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise NoCounterError(f"{_STATUS} has no {field} here")


def trim_heap() -> None:
    """Reduce the resident set to the memory in use: collect garbage, and release the C library's reserve."""
    gc.collect()
    # Otherwise a tensor may measure 0 bytes after another of its size, whose freed memory it reuses.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)

"""Helpers for the benchmarks of single kernels: CUDA graphs, which leave Python out of the times, and limits."""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from minillm.measure.timing import device_name

CANNOT_RUN = 77  # benchmarks/gpu.py takes it for "skipped"


def refusal(device: str) -> str:
    """Empty, or why the kernels cannot be timed on `device`."""
    if not device.startswith("cuda") or not torch.cuda.is_available():
        seen = torch.cuda.device_count()
        return f"needs a CUDA device: asked for {device}, and torch {torch.__version__} sees {seen}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"needs sm_80 or newer, and {device_name(device)} is older"
    return ""


def captured(calls: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """A CUDA graph of all `calls`, one after the other, to be replayed: one launch for all of them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiled, and every workspace allocated, before the capture
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph.replay


def copies_beyond_cache(num_bytes: int, device: str) -> int:
    """How many buffers of `num_bytes` must take turns so that none is found in the L2 cache: past twice its size."""
    return max(2, 2 * torch.cuda.get_device_properties(device).L2_cache_size // num_bytes + 1)


def bandwidth_sides(num_bytes: int, repeats: int, device: str) -> dict[str, Callable[[], None]]:
    """Graphs that read a buffer of `num_bytes`, and that copy one half of it to the other, `repeats` times."""
    buffer = torch.ones(num_bytes // 4, device=device)
    first, second = buffer.chunk(2)
    return {
        "read": captured([buffer.sum] * repeats),
        "copy": captured([partial(second.copy_, first)] * repeats),
    }

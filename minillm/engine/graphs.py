"""CUDA graphs: a decode step recorded once, and then replayed with a single launch.

A decode step of a small model has hundreds of kernels of a few microseconds each. Python needs more time to launch one
than the GPU needs to run it. A graph is a recording of these launches with all their arguments, and a replay costs one
launch. In return nothing in it may change, neither a shape nor an address.

So the inputs are copied into fixed buffers, and a step of R requests is padded to the next size of a ladder. Padding
rows have slot -1, so they write nothing, and length 0, so they read nothing. The width of the block tables is recorded
too, so it is the width that the longest text needs. A step that fits no recording, such as a prompt, runs eagerly.

Source: NVIDIA, "Getting Started with CUDA Graphs" (2019); torch.cuda.graph.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm.batch import Batch
from minillm.cache.kv_cache import KVCache
from minillm.model.transformer import Transformer

LARGEST = 256  # requests in a recorded step; a larger step is long enough to hide its launches


def ladder(most: int) -> list[int]:
    """Return the sizes to record for up to `most` requests: 1, 2, 4, then every multiple of 8, and `most` itself."""
    most = min(most, LARGEST)
    return sorted({size for size in (1, 2, 4, *range(8, most, 8), most) if size <= most})


class Recorder(Protocol):
    """Runs a step and returns a function that repeats it on the same memory."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]: ...


class CudaRecorder:
    """Records on the current CUDA device. All recordings share one pool of memory, as only one runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None  # a handle that torch has no public name for

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        # Run the step eagerly first, on its own stream, to compile kernels and let libraries take their workspace.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        self._pool = graph.pool()
        return graph.replay


class DecodeGraphs:
    """Recorded decode steps of `model` over `cache`, one for each size of the ladder.

    The operations of `model` must skip slots of -1 and lengths of 0, as the kernels do, and must read all their inputs
    from the batch's tensors.
    """

    def __init__(
        self, model: Transformer, cache: KVCache, max_num_seqs: int, max_model_len: int, record: Recorder
    ) -> None:
        # A recording keeps the addresses of the RoPE tables, so these must cover the whole context before recording.
        self.model = model.with_context(max_model_len)
        self.cache, self.sizes = cache, ladder(max_num_seqs)
        rows, width = self.sizes[-1], -(-max_model_len // cache.block_size)
        empty = partial(torch.zeros, device=model.device)
        self._buffers = Batch(
            token_ids=empty(rows, dtype=torch.int64),
            positions=empty(rows, dtype=torch.int64),
            slot_mapping=torch.full((rows,), -1, dtype=torch.int64, device=model.device),
            query_start=torch.arange(rows + 1, dtype=torch.int32, device=model.device),
            seq_lens=empty(rows, dtype=torch.int32),
            block_tables=empty((rows, width), dtype=torch.int32),
            block_size=cache.block_size,
            chunks=(),
        )
        self._logits = torch.empty((rows, model.config.vocab_size), device=model.device)
        # Record the largest size first: the others then fit into the memory that it took.
        self._replay = {size: record(partial(self._step, size)) for size in reversed(self.sizes)}

    def run(self, batch: Batch) -> Tensor | None:
        """Return the logits [R, vocab] of a step in which every request computes one token; None if no recording fits.

        The next run overwrites them.
        """
        num_requests, width = batch.block_tables.shape
        buffers = self._buffers
        if (
            len(batch.token_ids) != num_requests
            or num_requests > self.sizes[-1]
            or width > buffers.block_tables.shape[1]
        ):
            return None
        size = next(size for size in self.sizes if size >= num_requests)
        for name, padding in (("token_ids", 0), ("positions", 0), ("slot_mapping", -1), ("seq_lens", 0)):
            buffer = getattr(buffers, name)
            buffer[:num_requests].copy_(getattr(batch, name))
            buffer[num_requests:size].fill_(padding)
        buffers.block_tables[:num_requests, :width].copy_(batch.block_tables)
        self._replay[size]()
        return self._logits[:num_requests]

    def _step(self, size: int) -> None:
        buffers = self._buffers
        batch = replace(
            buffers,
            token_ids=buffers.token_ids[:size],
            positions=buffers.positions[:size],
            slot_mapping=buffers.slot_mapping[:size],
            query_start=buffers.query_start[: size + 1],
            seq_lens=buffers.seq_lens[:size],
            block_tables=buffers.block_tables[:size],
        )
        self._logits[:size].copy_(self.model.logits(self.model(batch, self.cache)))

"""CUDA graphs: a decode step recorded once, and then replayed with a single launch.

A decode step of a small model has hundreds of kernels of a few microseconds each. Python needs more time to launch one
than the GPU needs to run it. A graph is a recording of these launches with all their arguments, and a replay costs one
launch. In return nothing in it may change, neither a shape nor an address.

So the inputs are copied into fixed buffers, and a step of R requests is padded to the next size of a ladder. Padding
rows have slot -1, so they write nothing, and length 0, so they read nothing. The width of the block tables is recorded
too, so it is the width that the longest text needs. A step that fits no recording, such as a prompt, runs eagerly.

A step that verifies up to k drafts per request has recordings of its own, with k + 1 rows per request:

    rows of a request with 2 drafts, k = 4       - - t d d      its last row is its last token

The padding comes first, because attention counts positions from the end: the last row of a request has the position
of its last key. So the padding rows have smaller positions than the tokens, and read only keys that exist.

Source: NVIDIA, "Getting Started with CUDA Graphs" (2019); torch.cuda.graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count
from typing import Any, Protocol

import torch
from torch import Tensor

from minillm.batch import Batch
from minillm.cache.kv_cache import KVCache
from minillm.model.transformer import Hidden, Transformer

LARGEST = 256  # rows of a recorded step; a larger step is long enough to hide its launches


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
    """Recorded steps of `model` over `cache` with up to `rows` tokens per request, one for each size of the ladder.

    `taps` are the layers whose outputs a step keeps in `hidden`; None keeps no hidden states. The operations of `model`
    must skip slots of -1 and lengths of 0, as the kernels do, and must read all their inputs from the batch's tensors.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        max_num_seqs: int,
        max_model_len: int,
        record: Recorder,
        rows: int = 1,
        taps: tuple[int, ...] | None = None,
    ) -> None:
        # A recording keeps the addresses of the RoPE tables, so these must cover the whole context before recording.
        self.model = model.with_context(max_model_len)
        self.cache, self.rows, self.taps = cache, rows, taps
        self.sizes = ladder(min(max_num_seqs, max(1, LARGEST // rows)))
        most, width = self.sizes[-1], -(-max_model_len // cache.block_size)
        empty = partial(torch.zeros, device=model.device)
        self._buffers = Batch(
            token_ids=empty(most * rows, dtype=torch.int64),
            positions=empty(most * rows, dtype=torch.int64),
            slot_mapping=torch.full((most * rows,), -1, dtype=torch.int64, device=model.device),
            query_start=torch.arange(0, most * rows + 1, rows, dtype=torch.int32, device=model.device),
            seq_lens=empty(most, dtype=torch.int32),
            block_tables=empty((most, width), dtype=torch.int32),
            block_size=cache.block_size,
            chunks=(),
        )
        self._logits = torch.empty((most * rows, model.config.vocab_size), device=model.device)
        self._hidden = [
            empty((most * rows, model.config.hidden_size), dtype=model.dtype)
            for _ in (() if taps is None else (0, *taps))
        ]
        self._places: slice | Tensor = slice(0)  # of the last step's tokens among the rows
        # Record the largest size first: the others then fit into the memory that it took.
        self._replay = {size: record(partial(self._step, size)) for size in reversed(self.sizes)}

    @property
    def hidden(self) -> Hidden | None:
        """Return the states of the last step's T tokens, each [T, hidden]; None without `taps`."""
        if self.taps is None:
            return None
        last, *taps = (states[self._places] for states in self._hidden)
        return Hidden(last, tuple(taps))

    def run(self, batch: Batch) -> Tensor | None:
        """Return the logits [T, vocab] of a step with few tokens per request; None if no recording fits.

        The next run overwrites them.
        """
        num_requests, width = batch.block_tables.shape
        buffers, counts = self._buffers, [len(chunk.token_ids) for chunk in batch.chunks]
        if max(counts) > self.rows or num_requests > self.sizes[-1] or width > buffers.block_tables.shape[1]:
            return None
        size = next(size for size in self.sizes if size >= num_requests)
        self._places = self._places_of(counts)
        for name, padding in (("token_ids", 0), ("positions", 0), ("slot_mapping", -1)):
            buffer = getattr(buffers, name)[: size * self.rows]
            buffer.fill_(padding)
            buffer[self._places] = getattr(batch, name)
        buffers.seq_lens[:num_requests].copy_(batch.seq_lens)
        buffers.seq_lens[num_requests:size].zero_()
        buffers.block_tables[:num_requests, :width].copy_(batch.block_tables)
        self._replay[size]()
        return self._logits[self._places]

    def _places_of(self, counts: Sequence[int]) -> slice | Tensor:
        """Return where the tokens of a step are among the rows: those of a request are the last of its rows."""
        if min(counts) == self.rows:
            return slice(len(counts) * self.rows)
        ends = count(self.rows, self.rows)
        places = chain.from_iterable(range(end - n, end) for n, end in zip(counts, ends, strict=False))
        return torch.tensor(list(places), device=self.model.device)

    def _step(self, size: int) -> None:
        buffers, num_rows = self._buffers, size * self.rows
        batch = replace(
            buffers,
            token_ids=buffers.token_ids[:num_rows],
            positions=buffers.positions[:num_rows],
            slot_mapping=buffers.slot_mapping[:num_rows],
            query_start=buffers.query_start[: size + 1],
            seq_lens=buffers.seq_lens[:size],
            block_tables=buffers.block_tables[:size],
        )
        last, taps = self.model.hidden_states(batch, self.cache, self.taps or ())
        self._logits[:num_rows].copy_(self.model.logits(last))
        for buffer, states in zip(self._hidden, (last, *taps), strict=False):
            buffer[:num_rows].copy_(states)

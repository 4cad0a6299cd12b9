"""`Batch`: which tokens this step computes, for whom, and where their keys and values go.

Everything is flat. A step over three requests that compute 5, 1 and 1 tokens is seven rows, not a padded
3 x 5 rectangle: prefill, decode and any mixture of them are the same thing to the model.

    token_ids    [t t t t t | t | t]      what
    query_start  [0          5   6   7]   whose: request r owns rows query_start[r] : query_start[r + 1]
    positions    [0 1 2 3 4 | 9 | 31]     where in its sequence each token stands
    slot_mapping [. . . . . | . | .]      where in the cache its key and value are written
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next `len(token_ids)` tokens of one request, of which `num_computed` are in the cache already."""

    token_ids: Sequence[int]
    num_computed: int
    block_table: Sequence[int]

    @property
    def seq_len(self) -> int:
        """Tokens in the cache once this step is done."""
        return self.num_computed + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """T tokens of R requests. `chunks` is the same on the host, for code that would else read tensors back, and
    `in_place` says of each request whether its blocks follow one another in memory."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    slot_mapping: Tensor  # [T] int64
    query_start: Tensor  # [R + 1] int32
    seq_lens: Tensor  # [R] int32
    block_tables: Tensor  # [R, max_blocks] int32, rows padded with 0
    chunks: tuple[Chunk, ...]
    in_place: tuple[bool, ...]

    @classmethod
    def of(cls, chunks: Sequence[Chunk], block_size: int, device: torch.device | str = "cpu") -> "Batch":
        """Lay the chunks end to end. Position p of a request lives in slot
        `block_table[p // block_size] * block_size + p % block_size`.

        A block table that is an `array("i")` is copied as memory, so that the cost of a step does not grow with it.
        """
        lengths = np.fromiter((len(c.token_ids) for c in chunks), np.int32, len(chunks))
        computed = np.fromiter((c.num_computed for c in chunks), np.int32, len(chunks))
        query_start = np.zeros(len(chunks) + 1, np.int32)
        np.cumsum(lengths, out=query_start[1:])
        num_tokens = int(query_start[-1])
        widths = np.fromiter((len(c.block_table) for c in chunks), np.int32, len(chunks))
        tables = np.zeros((len(chunks), widths.max()), np.int32)
        for row, chunk in zip(tables, chunks, strict=True):
            row[: len(chunk.block_table)] = chunk.block_table
        columns = np.arange(tables.shape[1])
        in_place = ((tables == tables[:, :1] + columns) | (columns >= widths[:, None])).all(1)
        request = np.repeat(np.arange(len(chunks)), lengths)  # [T], whose token it is
        positions = np.arange(num_tokens) + (computed - query_start[:-1])[request]
        slots = (
            tables[request, positions // block_size].astype(np.int64) * block_size + positions % block_size
        )
        token_ids = np.fromiter(chain.from_iterable(c.token_ids for c in chunks), np.int64, num_tokens)

        def tensor(values: NDArray[Any]) -> Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        return cls(
            token_ids=tensor(token_ids),
            positions=tensor(positions),
            slot_mapping=tensor(slots),
            query_start=tensor(query_start),
            seq_lens=tensor(computed + lengths),
            block_tables=tensor(tables),
            chunks=tuple(chunks),
            in_place=tuple(in_place.tolist()),
        )

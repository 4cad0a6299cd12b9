"""`Batch`: which tokens this step computes, for which requests, and where their keys and values go.

Everything is flat. A step over three requests that compute 5, 1 and 1 tokens is seven rows, not a padded
3 x 5 rectangle: prefill, decode and any mixture of them are the same thing to the model.

    token_ids    [t t t t t | t | t]      which token
    query_start  [0          5   6   7]   whose: request r has the rows query_start[r] : query_start[r + 1]
    positions    [0 1 2 3 4 | 9 | 31]     the token's place in its sequence
    slot_mapping [. . . . . | . | .]      the place in the cache where its key and value are written
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, repeat
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(slots=True)
class Chunk:
    """The next `len(token_ids)` tokens of one request, which already has `num_computed` tokens in the cache."""

    token_ids: Sequence[int]
    num_computed: int
    block_table: Sequence[int]

    @property
    def seq_len(self) -> int:
        """Return the number of tokens in the cache after this step."""
        return self.num_computed + len(self.token_ids)


@dataclass(frozen=True, eq=False)
class Batch:
    """T tokens of R requests. `chunks` holds the same on the host, for code that must not wait for the device."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    slot_mapping: Tensor  # [T] int64
    query_start: Tensor  # [R + 1] int32
    seq_lens: Tensor  # [R] int32
    block_tables: Tensor  # [R, max_blocks] int32, rows padded with 0
    block_size: int
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, chunks: Sequence[Chunk], block_size: int, device: torch.device | str = "cpu") -> "Batch":
        """Lay the chunks end to end. Position p of a request is in slot
        `block_table[p // block_size] * block_size + p % block_size`.

        A block table that is an `array("i")` is copied as memory, so that the cost of a step does not grow with it.
        """
        tables = [chunk.block_table for chunk in chunks]
        starts = [chunk.num_computed for chunk in chunks]
        lengths = [len(chunk.token_ids) for chunk in chunks]
        seq_lens = list(map(add, starts, lengths))
        positions, owners = starts, tables  # of a decode step, which has one token per chunk
        if lengths.count(1) < len(lengths):
            positions = list(chain.from_iterable(map(range, starts, seq_lens)))
            owners = list(chain.from_iterable(map(repeat, tables, lengths)))
        slots = [
            table[p // block_size] * block_size + p % block_size
            for table, p in zip(owners, positions, strict=True)
        ]
        # Build the tables as bytes: Python pads and joins these several times faster than NumPy fills rows.
        width = 4 * max(map(len, tables))
        padded = bytearray().join(array("i", table).tobytes().ljust(width, b"\0") for table in tables)

        def tensor(values: Any, dtype: type) -> Tensor:
            return torch.from_numpy(np.asarray(values, dtype)).to(device, non_blocking=True)

        return cls(
            token_ids=tensor(list(chain.from_iterable([chunk.token_ids for chunk in chunks])), np.int64),
            positions=tensor(positions, np.int64),
            slot_mapping=tensor(slots, np.int64),
            query_start=tensor([0, *accumulate(lengths)], np.int32),
            seq_lens=tensor(seq_lens, np.int32),
            block_tables=tensor(np.frombuffer(padded, np.int32).reshape(len(tables), width // 4), np.int32),
            block_size=block_size,
            chunks=tuple(chunks),
        )

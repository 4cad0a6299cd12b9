"""`Batch`: which tokens this step computes, for whom, and where their keys and values go.

Everything is flat. A step over three requests that compute 5, 1 and 1 tokens is seven rows, not a padded
3 x 5 rectangle: prefill, decode and any mixture of them are the same thing to the model.

    token_ids    [t t t t t | t | t]      what
    query_start  [0          5   6   7]   whose: request r owns rows query_start[r] : query_start[r + 1]
    positions    [0 1 2 3 4 | 9 | 31]     where in its sequence each token stands
    slot_mapping [. . . . . | . | .]      where in the cache its key and value are written
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Tokens that a `Read` of several requests may span, and how many of them may be padding: about as many as are read in
# the time of another call (`benchmarks/cpu_paged_attention.py`).
READ_AT_ONCE, PADDING_AT_ONCE = 4096, 512


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
class Read:
    """What attention without a kernel reads at once: one request, or R that compute one token each, side by side.

    Each of the R is as long as the longest, S; shorter ones are padded with their own first slot, never a stranger's.
    One request whose blocks follow one another is read where it lies: its `slots` are a slice.
    """

    rows: slice | Tensor  # of the batch's T tokens: all of one request, or [R]
    slots: slice | Tensor  # of the cache: S of one request, or [R * S]
    ages: Tensor | None = (
        None  # [R, S]: how many tokens before the last, negative where padded; None for one request
    )


@dataclass(frozen=True)
class Batch:
    """T tokens of R requests. `chunks` is the same on the host, for code that would else read tensors back."""

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
        """Lay the chunks end to end. Position p of a request lives in slot
        `block_table[p // block_size] * block_size + p % block_size`.

        A block table that is an `array("i")` is copied as memory, so that the cost of a step does not grow with it.
        """
        starts = list(accumulate((len(c.token_ids) for c in chunks), initial=0))
        seq_lens = [c.seq_len for c in chunks]
        if starts[-1] == len(
            chunks
        ):  # a decode step, the most common by far: integers are quicker than arrays of one
            positions: Any = [c.num_computed for c in chunks]
            slots: Any = [
                c.block_table[p // block_size] * block_size + p % block_size
                for c, p in zip(chunks, positions, strict=True)
            ]
        else:
            parts = [np.arange(c.num_computed, c.seq_len) for c in chunks]
            positions = np.concatenate(parts)
            slots = np.concatenate(
                [_slots(c.block_table, part, block_size) for c, part in zip(chunks, parts, strict=True)]
            )

        def tensor(values: Any, dtype: type) -> Tensor:
            return torch.from_numpy(np.array(values, dtype)).to(device, non_blocking=True)

        return cls(
            token_ids=tensor(list(chain.from_iterable(c.token_ids for c in chunks)), np.int64),
            positions=tensor(positions, np.int64),
            slot_mapping=tensor(slots, np.int64),
            query_start=tensor(starts, np.int32),
            seq_lens=tensor(seq_lens, np.int32),
            block_tables=tensor(_tables([c.block_table for c in chunks]), np.int32),
            block_size=block_size,
            chunks=tuple(chunks),
        )

    @cached_property
    def reads(self) -> list[Read]:
        """The batch, taken apart for attention without a kernel; made once and used by every layer.

        A call costs as much as reading hundreds of tokens, and padding is read too: so requests that decode are read
        together where their lengths are alike.
        """
        alone: list[tuple[slice, Chunk]] = []
        decoding: list[tuple[int, Chunk]] = []
        row = 0
        for chunk in self.chunks:
            rows = slice(row, row := row + len(chunk.token_ids))
            if len(chunk.token_ids) > 1:
                alone.append((rows, chunk))
            else:
                decoding.append((rows.start, chunk))
        reads = []
        for group in _alike(decoding):
            if len(group) > 1:
                reads.append(self._read_together(group))
            else:
                [(row, chunk)] = group
                alone.append((slice(row, row + 1), chunk))
        return [*reads, *(self._read_alone(rows, chunk) for rows, chunk in alone)]

    def _read_alone(self, rows: slice, chunk: Chunk) -> Read:
        table = np.array(chunk.block_table[: -(-chunk.seq_len // self.block_size)], np.int64)
        if (table == table[0] + np.arange(len(table))).all():
            first = int(table[0]) * self.block_size
            return Read(rows, slice(first, first + chunk.seq_len))
        slots = _slots(table, np.arange(chunk.seq_len), self.block_size)
        return Read(rows, self._tensor(slots))

    def _read_together(self, group: Sequence[tuple[int, Chunk]]) -> Read:
        """`group` is in order of length."""
        longest = group[-1][1].seq_len
        width = -(-longest // self.block_size)
        tables = _tables([chunk.block_table[:width] for _, chunk in group]).astype(np.int64)
        offsets = np.arange(width * self.block_size)
        slots = (tables.repeat(self.block_size, axis=1) * self.block_size + offsets % self.block_size)[
            :, :longest
        ]
        ages = np.array([[chunk.seq_len - 1] for _, chunk in group]) - offsets[:longest]
        slots = np.where(ages < 0, slots[:, :1], slots)
        rows = np.array([row for row, _ in group])
        return Read(self._tensor(rows), self._tensor(slots.ravel()), self._tensor(ages))

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.token_ids.device)


def _alike(decoding: list[tuple[int, Chunk]]) -> Iterable[list[tuple[int, Chunk]]]:
    """Cut requests, in order of length, into groups that are read together."""
    group: list[tuple[int, Chunk]] = []
    total = 0  # of their own tokens
    for row, chunk in sorted(decoding, key=lambda one: one[1].seq_len):
        padded = (len(group) + 1) * chunk.seq_len
        if group and (padded > READ_AT_ONCE or padded - total - chunk.seq_len > PADDING_AT_ONCE):
            yield group
            group, total = [], 0
        group.append((row, chunk))
        total += chunk.seq_len
    if group:
        yield group


def _slots(
    block_table: Sequence[int] | NDArray[Any], positions: NDArray[np.int64], block_size: int
) -> NDArray[np.int64]:
    table = np.asarray(block_table, np.int64)
    return table[positions // block_size] * block_size + positions % block_size


def _tables(block_tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """[R, longest], rows padded with 0."""
    if len(block_tables) == 1:
        return np.array(block_tables, np.int32)
    tables = np.zeros((len(block_tables), max(map(len, block_tables))), np.int32)
    for row, table in zip(tables, block_tables, strict=True):
        row[: len(table)] = table
    return tables

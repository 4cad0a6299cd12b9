"""`Batch`: which tokens this step computes, for whom, and where their keys and values go.

Everything is flat. A step over three requests that compute 5, 1 and 1 tokens is seven rows, not a padded
3 x 5 rectangle: prefill, decode and any mixture of them are the same thing to the model.

    token_ids    [t t t t t | t | t]      what
    query_start  [0          5   6   7]   whose: request r owns rows query_start[r] : query_start[r + 1]
    positions    [0 1 2 3 4 | 9 | 31]     where in its sequence each token stands
    slot_mapping [. . . . . | . | .]      where in the cache its key and value are written
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Tokens that a `ReadTogether` may span, and how many of them may be padding: about as many as are read in the time that
# another call costs (`benchmarks/cpu_paged_attention.py`).
MOST_TOGETHER, MOST_PADDING = 4096, 512


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
class ReadAlone:
    """What attention without a kernel reads at once for one request, which computes any number of tokens.

    If its blocks follow one another they are read where they lie: `slots` is a slice.
    """

    rows: slice  # its own of the batch's T tokens
    slots: slice | Tensor  # [S], of the cache


@dataclass(frozen=True, slots=True)
class ReadTogether:
    """The same for R requests that compute one token each, side by side, all as long as the longest, S.

    Shorter ones are padded with their own first slot, never a stranger's.
    """

    rows: Tensor  # [R], of the batch's T tokens
    slots: Tensor  # [R * S], of the cache
    ages: Tensor  # [R, S]: how many tokens before the last each is, negative where padded
    _masks: dict[tuple[int | None, torch.dtype], Tensor] = field(default_factory=dict, compare=False)

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """[R, 1, 1, S]: what attention adds to the scores, 0 for what is seen; made once and used by every layer."""
        if (window, dtype) not in self._masks:
            seen = self.ages >= 0 if window is None else (self.ages >= 0) & (self.ages < window)
            mask = torch.zeros(self.ages.shape, dtype=dtype, device=self.ages.device)
            self._masks[window, dtype] = mask.masked_fill_(~seen, float("-inf"))[:, None, None]
        return self._masks[window, dtype]


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
    plans: dict[Any, Any] = field(
        default_factory=dict, compare=False
    )  # what operations keep for the next layer

    @classmethod
    def of(cls, chunks: Sequence[Chunk], block_size: int, device: torch.device | str = "cpu") -> "Batch":
        """Lay the chunks end to end. Position p of a request lives in slot
        `block_table[p // block_size] * block_size + p % block_size`.

        A block table that is an `array("i")` is copied as memory, so that the cost of a step does not grow with it.
        """
        starts = list(accumulate((len(c.token_ids) for c in chunks), initial=0))
        seq_lens = [c.seq_len for c in chunks]
        if starts[-1] == len(chunks):
            # All decode, as most steps are: integers are quicker than arrays of one.
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
    def reads(self) -> list[ReadAlone | ReadTogether]:
        """What attention without a kernel reads; made once, used by every layer.

        A call costs as much as reading hundreds of tokens, and padding is read too: so the requests that compute one
        token are read together where their lengths are alike.
        """
        reads: list[ReadAlone | ReadTogether] = [
            self.read_alone(r) for r, chunk in enumerate(self.chunks) if len(chunk.token_ids) > 1
        ]
        for group in _alike([(r, c.seq_len) for r, c in enumerate(self.chunks) if len(c.token_ids) == 1]):
            reads.append(self._read_together(group) if len(group) > 1 else self.read_alone(group[0]))
        return reads

    def read_alone(self, r: int) -> ReadAlone:
        """What it reads for request r by itself."""
        chunk, start = self.chunks[r], self._starts[r]
        rows = slice(start, start + len(chunk.token_ids))
        table = np.array(chunk.block_table[: -(-chunk.seq_len // self.block_size)], np.int32)
        if (table == table[0] + np.arange(len(table))).all():
            first = int(table[0]) * self.block_size
            return ReadAlone(rows, slice(first, first + chunk.seq_len))
        return ReadAlone(rows, self._tensor(_slots(table, np.arange(chunk.seq_len), self.block_size)))

    @cached_property
    def _starts(self) -> list[int]:
        """`query_start` on the host."""
        return list(accumulate((len(c.token_ids) for c in self.chunks), initial=0))

    def _read_together(self, group: Sequence[int]) -> ReadTogether:
        """`group` is in order of length."""
        chunks = [self.chunks[r] for r in group]
        positions = np.arange(chunks[-1].seq_len)
        slots = _slots(_tables([chunk.block_table for chunk in chunks]), positions, self.block_size)
        ages = np.array([[chunk.seq_len - 1] for chunk in chunks]) - positions
        slots = np.where(ages < 0, slots[:, :1], slots)
        rows = np.array([self._starts[r] for r in group])
        return ReadTogether(self._tensor(rows), self._tensor(slots.ravel()), self._tensor(ages))

    def _tensor(self, values: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self.token_ids.device)


def _alike(decoding: list[tuple[int, int]]) -> Iterable[list[int]]:
    """Cut requests with their lengths, in order of length, into groups that are read together."""
    group: list[int] = []
    total = 0  # of their own tokens
    for r, length in sorted(decoding, key=lambda one: one[1]):
        padded = (len(group) + 1) * length
        if group and (padded > MOST_TOGETHER or padded - total - length > MOST_PADDING):
            yield group
            group, total = [], 0
        group.append(r)
        total += length
    if group:
        yield group


def _slots(
    block_tables: Sequence[int] | NDArray[np.int32], positions: NDArray[np.int64], block_size: int
) -> NDArray[np.int64]:
    """Where `positions` [P] lie: [P] by one block table, [R, P] by R of them."""
    tables = np.asarray(block_tables)
    return tables[..., positions // block_size].astype(np.int64) * block_size + positions % block_size


def _tables(block_tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """[R, longest], rows padded with 0."""
    tables = np.zeros((len(block_tables), max(map(len, block_tables))), np.int32)
    for row, table in zip(tables, block_tables, strict=True):
        row[: len(table)] = table
    return tables

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
from itertools import accumulate, chain

import torch
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
    """T tokens of R requests. `chunks` is the same on the host, for code that would else read tensors back."""

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    slot_mapping: Tensor  # [T] int64
    query_start: Tensor  # [R + 1] int32
    seq_lens: Tensor  # [R] int32
    block_tables: Tensor  # [R, max_blocks] int32, rows padded with 0
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, chunks: Sequence[Chunk], block_size: int, device: torch.device | str = "cpu") -> "Batch":
        """Lay the chunks end to end. Position p of a request lives in slot
        `block_table[p // block_size] * block_size + p % block_size`.
        """

        def tensor(values: list[int] | list[list[int]], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

        width = max(len(c.block_table) for c in chunks)
        slots = [
            c.block_table[p // block_size] * block_size + p % block_size
            for c in chunks
            for p in range(c.num_computed, c.seq_len)
        ]
        return cls(
            token_ids=tensor(list(chain.from_iterable(c.token_ids for c in chunks)), torch.int64),
            positions=tensor([p for c in chunks for p in range(c.num_computed, c.seq_len)], torch.int64),
            slot_mapping=tensor(slots, torch.int64),
            query_start=tensor([0, *accumulate(len(c.token_ids) for c in chunks)], torch.int32),
            seq_lens=tensor([c.seq_len for c in chunks], torch.int32),
            block_tables=tensor(
                [[*c.block_table, *[0] * (width - len(c.block_table))] for c in chunks], torch.int32
            ),
            chunks=tuple(chunks),
        )

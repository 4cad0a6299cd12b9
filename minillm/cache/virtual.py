"""The virtual KV cache: a contiguous row of addresses a request, and memory under it only as far as it is written.

Paging (paged.py) saves memory by giving up contiguity. Each access then goes through a block table: every attention
kernel must be written anew for it and look blocks up as it reads, and dense products need the scattered gathered first.
But each load and store goes through a table of pages already, the processor's own, which its memory management unit
(MMU) walks in hardware. So reserve the addresses of `max_model_len` tokens for each of `max_num_seqs` requests, which
costs nothing, and put pages of memory under them one by one. The row is one block as in the contiguous cache: attention
reads it in place and does not know.

    row 0  |######........................|      # pages that have memory
    row 1  |###...........................|      . addresses that have none
    row 2  |########################......|

Where it loses: the hardware chooses the size of a page. One page holds tokens of one layer, of K or of V, so that a
request takes at least 2 x layers of them. A CPU's page of 4 KiB holds 8 tokens of `tinytales` in float32, no more than
a block; a GPU's page of 2 MiB holds 1024 tokens of Llama 3 8B in bfloat16, so that its shortest request takes 2 x 32 x
2 MiB = 128 MiB. A new page is a fault or a call to the driver in each layer, where a block table gets one more number.
And requests that begin alike share nothing here: no prefix caching, no forks. Nor does a CPU always gain by reading in
place: a gather sweeps through memory once, and attention then finds the keys of a short text in the processor's cache.

Source: Prabhu et al. 2024, "vAttention: Dynamic Memory Management for Serving LLMs without PagedAttention" (arXiv
2405.04437), Microsoft Research.
"""

import math
import mmap
import sys
from array import array
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from minillm.cache import cuda_pages
from minillm.cache.blocks import BlockAllocator
from minillm.cache.contiguous import KVCache
from minillm.cache.manager import CachedSequence, KVCacheManager
from minillm.config import ModelConfig
from minillm.ops import Ops


class Pages(Protocol):
    """A range of addresses, of which each page has memory or has none. Offsets and sizes are whole pages, in bytes."""

    def tensor(self) -> Tensor:
        """The whole range, uint8; what has no memory must not be touched. The range lives as long as the tensor."""
        ...

    def map(self, offset: int, num_bytes: int) -> None:
        """Let these pages, which have no memory, be used."""
        ...

    def unmap(self, offset: int, num_bytes: int) -> None:
        """Take the memory of these pages back; what they held is lost."""
        ...


class HostPages:
    """Demand paging by the operating system: the first write to a page faults, and the kernel puts memory under it.

    Raises `NotImplementedError` where a process cannot give back single pages, and `MemoryError` where the system
    refuses the addresses.
    """

    def __init__(self, num_bytes: int) -> None:
        if not hasattr(mmap, "MADV_DONTNEED"):
            raise NotImplementedError(
                f'kv_cache="virtual" needs mmap and madvise, and {sys.platform} has no madvise: use kv_cache="paged"'
            )
        # Without this flag, which Python 3.13 named, the kernel may refuse more addresses than there is memory.
        no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        try:
            self._range = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
        except OSError as error:
            raise MemoryError(
                f"the system refuses {num_bytes / 2**30:,.1f} GiB of addresses ({error}): lower max_num_seqs or "
                "max_model_len, or allow overcommitting (sysctl vm.overcommit_memory, ulimit -v)"
            ) from error
        if Path("/sys/kernel/mm/transparent_hugepage").exists():
            # One touched byte could else bring 2 MiB with it, and more would be held than is counted.
            self._range.madvise(mmap.MADV_NOHUGEPAGE)

    def tensor(self) -> Tensor:
        # It holds the mapping, which goes with the last tensor over it; to close it before would be a crash.
        return torch.frombuffer(self._range, dtype=torch.uint8)

    def map(self, offset: int, num_bytes: int) -> None:
        """Nothing to do: whoever writes brings the memory."""

    def unmap(self, offset: int, num_bytes: int) -> None:
        # On macOS DONTNEED keeps the pages; FREE lets the kernel take them, when it wants them.
        advice = mmap.MADV_FREE if sys.platform == "darwin" else mmap.MADV_DONTNEED
        self._range.madvise(advice, offset, num_bytes)


@dataclass(frozen=True, slots=True)
class Page:
    """What is lent at a time: `num_bytes` of each layer's K and V, which hold `num_tokens` whole tokens."""

    num_bytes: int
    num_tokens: int

    @classmethod
    def of(cls, token_bytes: int, granularity: int) -> "Page":
        """The fewest of the system's pages of which less than a tenth is lost to a token that does not fit whole.

        `token_bytes` is one layer's K (or V) of a token, `granularity` the size of the system's pages.
        """
        sizes = (granularity * n for n in count(1))
        num_bytes = next(size for size in sizes if size % token_bytes < size / 10)
        return cls(num_bytes, num_bytes // token_bytes)

    @classmethod
    def of_model(cls, config: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> "Page":
        """The page for a model's cache on a device."""
        on_cpu = torch.device(device).type == "cpu"
        granularity = mmap.PAGESIZE if on_cpu else cuda_pages.granularity(torch.device(device))
        return cls.of(config.kv_size * dtype.itemsize, granularity)


class VirtualKVCache(KVCache):
    """A KVCache whose rows begin at page boundaries and have memory where `map` was called (on a CPU: and was written).

    `k` and `v` are [layers, num_rows, block_size, H_kv, D], with `block_size` >= `max_model_len` tokens a row; `nbytes`
    are addresses. At most `num_pages` pages, each of every layer's K and V, may be mapped at a time.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_rows: int,
        max_model_len: int,
        num_pages: int,
        page: Page,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        ops: Ops | None = None,
    ) -> None:
        token_bytes = config.kv_size * dtype.itemsize
        # A row ends where a page and a token do.
        unit = math.lcm(page.num_bytes, token_bytes)
        row_pages = -(-max_model_len // page.num_tokens)
        self._row_bytes = -(-row_pages * page.num_bytes // unit) * unit
        row_len = self._row_bytes // token_bytes
        super().__init__(config, num_rows, row_len, dtype, "meta", ops)  # the shapes, without memory
        self.page, self._num_planes = (
            page,
            2 * config.num_hidden_layers,
        )  # planes: K of each layer, V of each layer
        self._pages: Pages
        if torch.device(device).type == "cpu":
            self._pages = HostPages(self.nbytes)
        else:
            self._pages = cuda_pages.CudaPages(
                self.nbytes, page.num_bytes, num_pages * self._num_planes, torch.device(device)
            )
        self.k, self.v = self._pages.tensor().view(dtype).view(2, *self.k.shape)

    def map(self, row: int, first: int, last: int) -> None:
        """Let the pages `first` to `last`, exclusive, of a row be used, in every layer."""
        for offset in self._offsets(row, first):
            self._pages.map(offset, (last - first) * self.page.num_bytes)

    def unmap(self, row: int, first: int, last: int) -> None:
        """Take their memory back."""
        for offset in self._offsets(row, first):
            self._pages.unmap(offset, (last - first) * self.page.num_bytes)

    def _offsets(self, row: int, page: int) -> list[int]:
        starts = ((plane * self.num_rows + row) * self._row_bytes for plane in range(self._num_planes))
        return [start + page * self.page.num_bytes for start in starts]


class Rows(Protocol):
    """What the manager moves: memory under the pages of a row."""

    def map(self, row: int, first: int, last: int) -> None: ...

    def unmap(self, row: int, first: int, last: int) -> None: ...


class VirtualKVCacheManager(KVCacheManager):
    """Lends a row to each request, and of `num_pages` pages as many as its tokens need. Blocks, where the scheduler,
    the engine and the trace count them, are pages; `page_tokens` is what one holds. A block table has one entry, the
    row.

    A request that ends leaves its pages under its row, for the next one there (vAttention calls it deferred
    reclamation), as long as free rows keep a quarter of all pages at most; they count as free, and are taken away when
    another row needs them.
    """

    def __init__(self, rows: Rows, num_rows: int, num_pages: int, page_tokens: int) -> None:
        self._rows, self._num_rows, self._most_idle = rows, num_rows, num_pages // 4
        self.mapped = [0] * num_rows  # pages of each row that have memory, or get it when they are written
        super().__init__(
            num_pages, page_tokens, allocator=lambda _: BlockAllocator(num_rows), can_fork=False
        )

    def reset(self) -> None:
        super().reset()
        self.lent = [0] * self._num_rows  # pages of each row that its request may use
        self._num_lent = 0
        self._reclaim(sum(self.mapped))

    @property
    def num_free(self) -> int:
        """Pages that no request holds."""
        return self.num_blocks - self._num_lent

    def may_grow(self, request: CachedSequence) -> bool:
        return self.lent[request.block_table[0]] < self.blocks_for(request.max_cached_tokens)

    def admit(self, request: CachedSequence, headroom: int = 0) -> bool:
        """Give a request a row, and pages for all of its tokens. Refuses unless `headroom` pages stay free."""
        needed = self.blocks_for(request.num_tokens)
        if needed + headroom > self.num_free or self.allocator.num_free == 0:
            return False
        row = self._allocate()  # the row freed last: it may still have memory
        request.block_table = array("i", [row])
        request.num_cached_tokens = request.num_computed_tokens = request.num_published = 0
        self._lend(row, needed)
        return True

    def grow(self, request: CachedSequence) -> bool:
        """Make room for all of a request's tokens: the next page is always at the next address."""
        row, needed = request.block_table[0], self.blocks_for(request.num_wanted)
        if needed - self.lent[row] > self.num_free:
            return False
        self._lend(row, max(needed, self.lent[row]))
        return True

    def free(self, request: CachedSequence) -> None:
        """Take a request's row and pages back."""
        [row] = request.block_table
        self._num_lent -= self.lent[row]
        self.lent[row] = 0
        super().free(request)
        self._reclaim(sum(self.mapped) - self._num_lent - self._most_idle)

    def _lend(self, row: int, num_pages: int) -> None:
        self._num_lent += num_pages - self.lent[row]
        self.lent[row] = num_pages
        more = num_pages - self.mapped[row]
        if more <= 0:
            return
        self._reclaim(sum(self.mapped) + more - self.num_blocks)
        self._rows.map(row, self.mapped[row], num_pages)
        self.mapped[row] = num_pages

    def _reclaim(self, num_pages: int) -> None:
        """Take so many pages from where they lie idle; the row that has most of them gives first."""
        while num_pages > 0:
            idle = [mapped - lent for mapped, lent in zip(self.mapped, self.lent, strict=True)]
            given = min(num_pages, max(idle))
            row = idle.index(max(idle))
            self._rows.unmap(row, self.mapped[row] - given, self.mapped[row])
            self.mapped[row] -= given
            num_pages -= given

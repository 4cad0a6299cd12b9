"""The virtual KV cache: contiguous addresses for each request, with memory only where tokens are written.

Paging (kv_cache.py) saves memory but gives up contiguity, so every attention kernel must look up a block table. Yet
each load and store already goes through a page table: the processor's own, which its memory management unit (MMU)
reads in hardware. The virtual cache reserves the addresses of `max_model_len` tokens for each of `max_num_seqs`
requests, which costs no memory. It maps pages of memory to these addresses one by one. To attention, a row is one
block, as in the contiguous cache.

    row 0  |######........................|      # pages that have memory
    row 1  |###...........................|      . addresses that have none
    row 2  |########################......|

This has three costs. First, the hardware chooses the size of a page. A page holds tokens of one layer, of K or of V,
so a request takes at least 2 x layers pages. A CPU's page of 4 KiB holds 8 tokens of `tinytales` in float32, fewer
than a block. A GPU's page of 2 MiB holds 1024 tokens of Llama 3 8B in bfloat16, so its shortest request takes 2 x 32 x
2 MiB = 128 MiB. Second, a new page needs a page fault or a driver call in each layer, while a new block is one number
in a table. Third, requests cannot share memory, so there is no prefix caching and there are no forks.

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
from typing import Any

import torch
from torch import Tensor

from minillm.cache.blocks import BlockAllocator
from minillm.cache.kv_cache import KVCache
from minillm.cache.manager import CachedSequence, KVCacheManager
from minillm.config import ModelConfig
from minillm.layer_kv import LARGEST, LayerKV
from minillm.ops import Ops, ops_for


class HostPages:
    """A range of addresses whose pages get memory from the operating system when they are first written.

    Raises `NotImplementedError` if a process cannot return single pages to the system, and `MemoryError` if the system
    refuses the addresses.
    """

    def __init__(self, num_bytes: int) -> None:
        if not hasattr(mmap, "MADV_DONTNEED"):
            raise NotImplementedError(
                f'kv_cache="virtual" needs mmap and madvise, but {sys.platform} has no madvise: use kv_cache="paged"'
            )
        # Without this flag, which has a name since Python 3.13, the kernel may refuse more addresses than memory.
        no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        try:
            self._range = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve)
        except OSError as error:
            raise MemoryError(
                f"the system refuses {num_bytes / 2**30:,.1f} GiB of addresses ({error}): lower max_num_seqs or "
                "max_model_len, or allow overcommitting (sysctl vm.overcommit_memory, ulimit -v)"
            ) from error
        if Path("/sys/kernel/mm/transparent_hugepage").exists():
            # Otherwise one written byte could bring 2 MiB, and more memory would be held than is counted.
            self._range.madvise(mmap.MADV_NOHUGEPAGE)

    def tensor(self) -> Tensor:
        """Return the range as a uint8 tensor. The range is unmapped with the last tensor over it."""
        return torch.frombuffer(self._range, dtype=torch.uint8)

    def map(self, offset: int, num_bytes: int) -> None:
        """Do nothing: a page gets its memory when it is first written."""

    def unmap(self, offset: int, num_bytes: int) -> None:
        """Return the memory of these pages to the system, which loses their content. Both numbers are whole pages, in
        bytes."""
        # On macOS DONTNEED keeps the pages; FREE lets the kernel take them when it needs them.
        advice = mmap.MADV_FREE if sys.platform == "darwin" else mmap.MADV_DONTNEED
        self._range.madvise(advice, offset, num_bytes)


@dataclass(frozen=True, slots=True)
class Page:
    """The unit of allocation: `num_bytes` of each layer's K and V, which hold `num_tokens` whole tokens."""

    num_bytes: int
    num_tokens: int

    @classmethod
    def of(cls, token_bytes: int, granularity: int) -> "Page":
        """Return the smallest multiple of a system page of which whole tokens fill more than nine tenths.

        `token_bytes` is the size of one token's K (or V) in one layer, `granularity` the size of a system page.
        """
        sizes = (granularity * n for n in count(1))
        num_bytes = next(size for size in sizes if size % token_bytes < size / 10)
        return cls(num_bytes, num_bytes // token_bytes)

    @classmethod
    def of_model(cls, config: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> "Page":
        """Return the page for a model's cache on a device. Raises `ValueError` for a quantised cache."""
        if dtype in LARGEST:
            raise ValueError(
                f'kv_cache="virtual" has no pages for the scales of a {dtype} cache. Use kv_cache="paged", or a cache '
                "in the model's dtype"
            )
        granularity = mmap.PAGESIZE
        if torch.device(device).type == "cuda":
            from minillm.cache import cuda_pages

            granularity = cuda_pages.granularity(torch.device(device))
        return cls.of(config.kv_size * dtype.itemsize, granularity)


class VirtualKVCache(KVCache):
    """A KVCache with one block per row. A row begins at a page and has memory only in the pages that `map` was given.

    `block_size` is at least `max_model_len`, and `nbytes` counts addresses. At most `num_pages` pages may be mapped at
    a time; a page here includes K and V of every layer. On a CPU a mapped page gets its memory when it is written.
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
        # Each row is a whole number of pages and of tokens.
        unit = math.lcm(page.num_bytes, token_bytes)
        row_pages = -(-max_model_len // page.num_tokens)
        self._row_bytes = -(-row_pages * page.num_bytes // unit) * unit
        device = torch.device(device)
        # Tensors on "meta" have shapes but no memory.
        super().__init__(
            config, num_rows, self._row_bytes // token_bytes, dtype, "meta", ops or ops_for(device)
        )
        self.page, self._num_planes = page, 2 * len(self.layers)  # planes: K and V of each layer
        self._pages: Any
        if device.type == "cuda":
            from minillm.cache.cuda_pages import CudaPages

            self._pages = CudaPages(self.nbytes, page.num_bytes, num_pages * self._num_planes, device)
        else:
            self._pages = HostPages(self.nbytes)
        planes = self._pages.tensor().view(dtype).view(self._num_planes, *self.layers[0].k.shape)
        self.layers = [LayerKV(*planes[i : i + 2]) for i in range(0, self._num_planes, 2)]

    def map(self, row: int, first: int, last: int) -> None:
        """Make the pages `first` to `last`, exclusive, of a row usable in every layer."""
        for offset in self._offsets(row, first):
            self._pages.map(offset, (last - first) * self.page.num_bytes)

    def unmap(self, row: int, first: int, last: int) -> None:
        """Release the memory of the pages `first` to `last`, exclusive, of a row in every layer."""
        for offset in self._offsets(row, first):
            self._pages.unmap(offset, (last - first) * self.page.num_bytes)

    def _offsets(self, row: int, page: int) -> list[int]:
        starts = ((plane * self.num_blocks + row) * self._row_bytes for plane in range(self._num_planes))
        return [start + page * self.page.num_bytes for start in starts]


class VirtualKVCacheManager(KVCacheManager):
    """Give each request a row, and as many of `num_pages` pages as its tokens need.

    The scheduler, the engine and the trace count blocks. Here such a block is a page of `page_tokens` tokens, while a
    block table has one entry, the row.
    """

    def __init__(self, rows: VirtualKVCache, num_rows: int, num_pages: int, page_tokens: int) -> None:
        self._rows = rows
        self.mapped = [0] * num_rows  # pages of each row
        super().__init__(num_pages, page_tokens, allocator=lambda _: BlockAllocator(num_rows), can_fork=False)

    def reset(self) -> None:
        super().reset()
        for row, mapped in enumerate(self.mapped):
            if mapped:
                self._rows.unmap(row, 0, mapped)
                self.mapped[row] = 0

    @property
    def num_free(self) -> int:
        """Return the number of pages that no request holds."""
        return self.num_blocks - sum(self.mapped)

    def may_grow(self, request: CachedSequence) -> bool:
        return self.mapped[request.block_table[0]] < self.blocks_for(request.max_cached_tokens)

    def admit(self, request: CachedSequence, headroom: int = 0) -> bool:
        """Give a request a row, and pages for all of its tokens. Return False unless `headroom` pages stay free."""
        if self.blocks_for(request.num_tokens) + headroom > self.num_free or self.allocator.num_free == 0:
            return False
        request.block_table = array("i", [self._allocate()])
        request.num_cached_tokens = request.num_computed_tokens = request.num_published = 0
        return self.grow(request)

    def grow(self, request: CachedSequence) -> bool:
        """Map the pages that a request's tokens need. Return False if too few pages are free."""
        row, needed = request.block_table[0], self.blocks_for(request.num_wanted)
        mapped = self.mapped[row]
        if needed - mapped > self.num_free:
            return False
        if needed > mapped:
            self._rows.map(row, mapped, needed)
            self.mapped[row] = needed
        return True

    def free(self, request: CachedSequence) -> None:
        """Free a request's row and its pages."""
        [row] = request.block_table
        self._rows.unmap(row, 0, self.mapped[row])
        self.mapped[row] = 0
        super().free(request)

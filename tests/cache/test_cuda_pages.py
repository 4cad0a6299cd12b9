"""A GPU's pages against a driver that is played, and checks each call as the real one would; tests/gpu/ has that."""

import sys
from enum import IntEnum
from types import SimpleNamespace

import pytest
import torch

from minillm.cache import cuda_pages
from minillm.cache.virtual import Page, VirtualKVCache
from minillm.ops import Ops
from tests.cache.test_virtual import config

PAGE, START = 2**21, 2**40
CUDA = torch.device("cuda", 0)


class Result(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_OUT_OF_MEMORY = 2


class Driver:
    """The calls of cuda.bindings.driver that are used, over a GPU of `most` pages; `log` has their names."""

    CUresult = Result
    CUmemAllocationType = SimpleNamespace(CU_MEM_ALLOCATION_TYPE_PINNED=1)
    CUmemLocationType = SimpleNamespace(CU_MEM_LOCATION_TYPE_DEVICE=1)
    CUmemAllocationGranularity_flags = SimpleNamespace(CU_MEM_ALLOC_GRANULARITY_MINIMUM=0)
    CUmemAccess_flags = SimpleNamespace(CU_MEM_ACCESS_FLAGS_PROT_READWRITE=3)

    def __init__(self, most: int = 100) -> None:
        self.most, self.reserved, self.handles, self.num_made = most, None, set(), 0
        self.mapped, self.accessible, self.log = {}, set(), []

    def CUmemAllocationProp(self):
        return SimpleNamespace(type=None, location=SimpleNamespace(type=None, id=None))

    def CUmemAccessDesc(self):
        return SimpleNamespace(location=None, flags=None)

    def cuMemGetAllocationGranularity(self, prop, option):
        assert (prop.type, prop.location.type, prop.location.id, option) == (1, 1, 0, 0)
        return Result.CUDA_SUCCESS, PAGE

    def cuMemAddressReserve(self, size, alignment, address, flags):
        assert self.reserved is None and size % PAGE == 0 and (alignment, address, flags) == (0, 0, 0)
        self.reserved = range(START, START + size)
        return Result.CUDA_SUCCESS, START

    def cuMemCreate(self, size, prop, flags):
        assert (size, prop.type, prop.location.type, prop.location.id, flags) == (PAGE, 1, 1, 0, 0)
        if len(self.handles) == self.most:
            return Result.CUDA_ERROR_OUT_OF_MEMORY, None
        self.num_made += 1
        self.handles.add(self.num_made)
        return Result.CUDA_SUCCESS, self.num_made

    def cuMemMap(self, address, size, offset, handle, flags):
        assert size == PAGE and (address - START) % PAGE == 0 and (offset, flags) == (0, 0)
        assert address in self.reserved and address + size - 1 in self.reserved
        assert address not in self.mapped and handle in self.handles - set(self.mapped.values())
        self.mapped[address] = handle
        self.log.append("map")
        return (Result.CUDA_SUCCESS,)

    def cuMemSetAccess(self, address, size, access, number):
        [one] = access
        assert number == 1 and one.flags == 3 and (one.location.type, one.location.id) == (1, 0)
        pages = set(range(address, address + size, PAGE))
        assert pages and pages <= set(self.mapped)
        self.accessible |= pages
        return (Result.CUDA_SUCCESS,)

    def cuMemUnmap(self, address, size):
        assert size == PAGE
        del self.mapped[address]
        self.accessible.discard(address)
        self.log.append("unmap")
        return (Result.CUDA_SUCCESS,)

    def cuMemRelease(self, handle):
        assert handle not in self.mapped.values()
        self.handles.remove(handle)
        return (Result.CUDA_SUCCESS,)

    def cuMemAddressFree(self, address, size):
        assert self.reserved == range(address, address + size) and not self.mapped
        self.reserved = None
        return (Result.CUDA_SUCCESS,)


@pytest.fixture
def driver(monkeypatch):
    played = Driver()
    monkeypatch.setattr(cuda_pages, "_driver", lambda: played)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: played.log.append("wait"))
    return played


def test_memory_is_mapped_where_it_is_wanted_and_comes_back(driver):
    pages = cuda_pages.CudaPages(10 * PAGE, PAGE, 4, CUDA)
    assert len(driver.handles) == 4 and driver.mapped == {}
    pages.map(2 * PAGE, 2 * PAGE)
    assert driver.accessible == set(driver.mapped) == {START + 2 * PAGE, START + 3 * PAGE}
    pages.map(9 * PAGE, PAGE)
    del driver.log[:]
    pages.unmap(2 * PAGE, PAGE)
    assert driver.log == ["wait", "unmap"], "a kernel may still be reading it"
    pages.map(4 * PAGE, 2 * PAGE)
    assert set(driver.mapped) == {START + page * PAGE for page in (3, 4, 5, 9)}
    assert driver.num_made == 4, "what was unmapped is used again"
    del pages
    assert driver.handles == set() and driver.mapped == {} and driver.reserved is None


def test_all_memory_is_made_at_the_start_or_none_is_kept(driver):
    driver.most = 3
    with pytest.raises(RuntimeError, match=r"cuMemCreate\(2,097,152, 0\) failed: CUDA_ERROR_OUT_OF_MEMORY"):
        cuda_pages.CudaPages(10 * PAGE, PAGE, 4, CUDA)
    assert driver.handles == set() and driver.reserved is None


def test_torch_meets_a_first_page_that_has_memory(driver, monkeypatch):
    def as_tensor(pages, device):
        """As torch does: asks the driver for the device of the first address, and keeps what it was given."""
        assert device == CUDA and START in driver.accessible
        given = pages.__cuda_array_interface__
        assert given == {"shape": (10 * PAGE,), "typestr": "|u1", "data": (START, False), "version": 3}
        return SimpleNamespace(holds=pages)

    monkeypatch.setattr(torch, "as_tensor", as_tensor)
    pages = cuda_pages.CudaPages(10 * PAGE, PAGE, 4, CUDA)
    tensor = pages.tensor()
    assert driver.mapped == {} and len(driver.handles) == 4
    del pages
    assert driver.reserved is not None, "the tensor holds it"
    del tensor
    assert driver.reserved is None


def test_a_cache_on_a_gpu_maps_the_page_in_every_layer(driver, monkeypatch):
    monkeypatch.setattr(
        cuda_pages.CudaPages,
        "tensor",
        lambda self: torch.empty(self._num_bytes, dtype=torch.uint8, device="meta"),
    )
    model = config(num_kv_heads=8, head_dim=128)
    page = Page.of_model(model, torch.float16, "cuda:0")
    assert page == Page(PAGE, 1024)
    cache = VirtualKVCache(model, 3, 3000, 5, page, torch.float16, "cuda:0", Ops())
    assert cache.block_size == 3072 and len(driver.handles) == 5 * 4
    cache.map(1, 0, 2), cache.map(2, 0, 3)
    # [K of layer 0, V of layer 0, K of layer 1, V of layer 1], each of three rows of three pages
    wanted = {plane * 9 + row for plane in range(4) for row in (3, 4, 6, 7, 8)}
    assert {(address - START) // PAGE for address in driver.mapped} == wanted
    cache.unmap(2, 1, 3)
    wanted = {plane * 9 + row for plane in range(4) for row in (3, 4, 6)}
    assert {(address - START) // PAGE for address in driver.accessible} == wanted


def test_without_the_bindings_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(ImportError, match=r"pip install cuda-bindings, or use kv_cache=\"paged\""):
        cuda_pages.granularity(CUDA)


def test_the_real_bindings_have_all_that_the_played_ones_have():
    real = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings comes with torch for CUDA")
    names = [name for name in vars(Driver) if name.startswith(("cu", "CU"))]
    assert len(names) > 10
    for name in names:
        assert hasattr(real, name)
        if isinstance(getattr(Driver, name), SimpleNamespace):
            for member, value in vars(getattr(Driver, name)).items():
                assert getattr(getattr(real, name), member) == value
    assert all(getattr(real.CUresult, result.name) == result for result in Result)

"""Pages of GPU memory mapped into a range of addresses with the CUDA driver's virtual memory calls.

An ordinary allocation does three things at once. Here they are separate: reserve addresses (`cuMemAddressReserve`),
create memory (`cuMemCreate`, which returns a handle without an address), and map the memory to an address
(`cuMemMap`, then `cuMemSetAccess`). All memory is created at the start, so later steps cannot run out of it. Unmapped
memory is kept for the next `map`.

A CPU handles an access to a missing page, but a GPU does not. Every page must be mapped before a kernel touches it.

Source: Prabhu et al. 2024 (arXiv 2405.04437), section 5; CUDA Driver API, "Virtual Memory Management".
"""

import importlib
import weakref
from typing import Any

import torch
from torch import Tensor


def granularity(device: torch.device) -> int:
    """Return the size in bytes of the smallest page of a device: 2 MiB on every GPU that we know of."""
    driver = _driver()
    smallest = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    torch.cuda.synchronize(device)  # starts CUDA
    return int(_call(driver, "cuMemGetAllocationGranularity", _memory_of(driver, device), smallest))


class CudaPages:
    """The GPU's version of `virtual.HostPages`: `num_bytes` addresses, and `num_pages` pages to map into them.

    The memory is taken at once. It is released with the last reference to this object and its tensor. Raises
    `ImportError` if the package cuda-bindings is missing, and `RuntimeError` with the driver's error if a call fails.
    """

    def __init__(self, num_bytes: int, page_bytes: int, num_pages: int, device: torch.device) -> None:
        self._driver, self._device, self._page_bytes = _driver(), device, page_bytes
        torch.cuda.synchronize(device)  # starts CUDA
        memory = _memory_of(self._driver, device)
        self._access = self._driver.CUmemAccessDesc()
        self._access.location = memory.location
        self._access.flags = self._driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
        self._start = int(_call(self._driver, "cuMemAddressReserve", num_bytes, 0, 0, 0))
        self._spare: list[Any] = []  # handles of memory that is not mapped
        self._mapped: dict[int, Any] = {}  # address: handle
        weakref.finalize(
            self,
            _release,
            self._driver,
            device,
            self._start,
            num_bytes,
            page_bytes,
            self._spare,
            self._mapped,
        )
        self._num_bytes = num_bytes
        for _ in range(num_pages):
            self._spare.append(_call(self._driver, "cuMemCreate", page_bytes, memory, 0))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Return the range as an array of bytes, in the CUDA Array Interface (Numba's documentation, version 3)."""
        return {"shape": (self._num_bytes,), "typestr": "|u1", "data": (self._start, False), "version": 3}

    def tensor(self) -> Tensor:
        """Return the range as a uint8 tensor, which keeps a reference to this object."""
        # Torch asks the driver for the device of the first address, which must have memory during that call.
        self.map(0, self._page_bytes)
        tensor = torch.as_tensor(self, device=self._device)
        self.unmap(0, self._page_bytes)
        return tensor

    def map(self, offset: int, num_bytes: int) -> None:
        """Map memory to these pages, which must have none. Both numbers are whole pages, in bytes."""
        start = self._start + offset
        for address in range(start, start + num_bytes, self._page_bytes):
            _call(self._driver, "cuMemMap", address, self._page_bytes, 0, self._spare[-1], 0)
            self._mapped[address] = self._spare.pop()
        _call(self._driver, "cuMemSetAccess", start, num_bytes, [self._access], 1)

    def unmap(self, offset: int, num_bytes: int) -> None:
        """Unmap these pages after all running kernels have finished. Both numbers are whole pages, in bytes."""
        torch.cuda.synchronize(self._device)
        start = self._start + offset
        for address in range(start, start + num_bytes, self._page_bytes):
            _call(self._driver, "cuMemUnmap", address, self._page_bytes)
            self._spare.append(self._mapped.pop(address))


def _release(
    driver: Any,
    device: torch.device,
    start: int,
    num_bytes: int,
    page_bytes: int,
    spare: list[Any],
    mapped: dict[int, Any],
) -> None:
    torch.cuda.synchronize(device)
    for address in mapped:
        _call(driver, "cuMemUnmap", address, page_bytes)
    for handle in (*spare, *mapped.values()):
        _call(driver, "cuMemRelease", handle)
    _call(driver, "cuMemAddressFree", start, num_bytes)


def _driver() -> Any:
    try:
        return importlib.import_module("cuda.bindings.driver")
    except ImportError as error:
        raise ImportError(
            'kv_cache="virtual" on a GPU calls the CUDA driver through the package cuda-bindings, which is missing. '
            'Run pip install cuda-bindings, or use kv_cache="paged"'
        ) from error


def _memory_of(driver: Any, device: torch.device) -> Any:
    """Return the properties that `cuMemCreate` needs for memory of this device."""
    wanted = driver.CUmemAllocationProp()
    wanted.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wanted.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wanted.location.id = torch.cuda.current_device() if device.index is None else device.index
    return wanted


def _call(driver: Any, name: str, *args: Any) -> Any:
    """Call the driver and return its value, if it has one. Raises `RuntimeError` with the driver's name of an error."""
    result, *values = getattr(driver, name)(*args)
    if result != driver.CUresult.CUDA_SUCCESS:
        shown = ", ".join(f"{arg:,}" for arg in args if isinstance(arg, int))
        raise RuntimeError(f"{name}({shown}) failed: {result.name}")
    return values[0] if values else None

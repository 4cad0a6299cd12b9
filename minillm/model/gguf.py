"""GGUF, the file format of llama.cpp: one file with a model's settings, its tokenizer and its weights.

A file is four parts in a row: a header, a table of metadata (key, type, value), a table of tensors (name, shape,
type, offset), and the data of the tensors. All numbers are little-endian.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

We parse the tables ourselves. The reader of the `gguf` library makes an array for every token and takes 2 s for a
vocabulary of 49,000 tokens; this one takes 0.1 s. The library unpacks the quantised blocks, of every type it knows.
"""

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType, dequantize
from torch import Tensor

from minillm.errors import CheckpointError

MAGIC, VERSIONS = b"GGUF", (2, 3)
SCALARS = {  # type of a metadata value: its letter in `struct`
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.FLOAT64: "d",
    GGUFValueType.BOOL: "?",
}
FLOATS = {  # tensor types that are plain numbers
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
STRIP = 2**20  # numbers unpacked at a time: the unpacked copy of a large tensor never exists twice
AGAIN = "download the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Describe one tensor: its shape in torch's order, its type, and where its bytes begin in the file.

    A row is the last dimension. It is stored in blocks that share a scale, so every row has `row_bytes` bytes.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    @property
    def row_bytes(self) -> int:
        block, block_bytes = GGML_QUANT_SIZES[self.kind]
        return self.shape[-1] // block * block_bytes

    @property
    def num_rows(self) -> int:
        return prod(self.shape[:-1])


class GgufFile:
    """The tables of a GGUF file: `metadata` by key, and `tensors` by name. Tensor data is read on demand.

    Raises `CheckpointError` for a file that is damaged, incomplete, big-endian, or one part of a split model.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            with path.open("rb") as file:
                self._check_magic(file.read(8))
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    self._read_tables(_Cursor(data))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
        except _Damaged as error:
            raise CheckpointError(f"{path} is damaged: {error}. {AGAIN.capitalize()}") from error

    def rows(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return a tensor as it is stored, [rows, bytes per row], mapped from the file."""
        info = self.tensors[name]
        shape = (info.num_rows, info.row_bytes)
        try:
            return np.memmap(self.path, np.uint8, mode="c", offset=info.offset, shape=shape)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: tensor {name!r} cannot be read ({error})") from error

    def _check_magic(self, start: bytes) -> None:
        if start[:4] != MAGIC:
            raise CheckpointError(
                f"{self.path} is not a GGUF file: it begins with {start[:4]!r}, not {MAGIC!r}. Give a .gguf file, or "
                "the folder of a model in safetensors"
            )
        if len(start) < 8:
            raise _Damaged(f"it ends after {len(start)} bytes")
        version = int.from_bytes(start[4:], "little")
        if version and version % 2**16 == 0:
            raise CheckpointError(f"{self.path} is big-endian. Get the little-endian file of this model")
        if version not in VERSIONS:
            raise CheckpointError(
                f"{self.path} has GGUF version {version}, and versions {' and '.join(map(str, VERSIONS))} are "
                "implemented. Convert the model again with a current llama.cpp"
            )

    def _read_tables(self, cursor: "_Cursor") -> None:
        cursor.skip(8)
        num_tensors, num_values = cursor.numbers("QQ")
        for _ in range(num_values):
            key = cursor.string()
            if key in self.metadata:
                raise _Damaged(f"the key {key!r} is there twice")
            self.metadata[key] = cursor.value()
        if self.metadata.get("split.count", 1) != 1:
            raise CheckpointError(
                f"{self.path} is one of {self.metadata['split.count']} parts of a split model. Join the parts with "
                "llama-gguf-split --merge, and load the file that it writes"
            )
        tables = [(cursor.string(), *self._tensor_entry(cursor)) for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise _Damaged(f"general.alignment is {alignment!r} and must be a power of two")
        start = -(-cursor.offset // alignment) * alignment
        for name, shape, kind, offset in tables:
            if name in self.tensors:
                raise _Damaged(f"the tensor {name!r} is there twice")
            self.tensors[name] = info = TensorInfo(shape, self._kind(name, kind), start + offset)
            self._check_extent(name, info, cursor.size)

    @staticmethod
    def _tensor_entry(cursor: "_Cursor") -> tuple[tuple[int, ...], int, int]:
        (num_dims,) = cursor.numbers("I")
        if not 1 <= num_dims <= 4:
            raise _Damaged(f"a tensor has {num_dims} dimensions, and the format allows 1 to 4")
        shape = cursor.numbers("Q" * num_dims)[::-1]  # ggml lists the fastest dimension first
        return (shape, *cursor.numbers("IQ"))

    def _kind(self, name: str, number: int) -> GGMLQuantizationType:
        try:
            return GGMLQuantizationType(number)
        except ValueError:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has type {number}, which the gguf library does not know. Update the "
                "library, or use a file of type Q4_0, Q4_K_M or Q8_0"
            ) from None

    @staticmethod
    def _check_extent(name: str, info: TensorInfo, size: int) -> None:
        block = GGML_QUANT_SIZES[info.kind][0]
        if min(info.shape) < 1 or info.shape[-1] % block:
            raise _Damaged(
                f"tensor {name!r} of type {info.kind.name} is {list(info.shape)}; its rows must be whole blocks of "
                f"{block} numbers"
            )
        end = info.offset + info.num_rows * info.row_bytes
        if end > size:
            raise _Damaged(f"tensor {name!r} ends at byte {end:,}, and the file has {size:,} bytes")


def unpack(rows: np.ndarray[Any, np.dtype[np.uint8]], kind: GGMLQuantizationType) -> Tensor:
    """Return the numbers of `rows` [rows, bytes per row] as [rows, numbers per row].

    Plain numbers keep their type. Blocks become float32. Raises `CheckpointError` for a type without a way to unpack.
    """
    if kind in FLOATS:
        return torch.from_numpy(rows).view(FLOATS[kind])
    block, block_bytes = GGML_QUANT_SIZES[kind]
    width = rows.shape[1] // block_bytes * block
    numbers = torch.empty(len(rows), width)
    step = max(1, STRIP // width)
    for i in range(0, len(rows), step):
        try:
            numbers[i : i + step] = torch.from_numpy(dequantize(np.asarray(rows[i : i + step]), kind))
        except NotImplementedError:
            raise CheckpointError(
                f"tensors of type {kind.name} cannot be unpacked: use a file of type Q4_0, Q4_K_M or Q8_0"
            ) from None
    return numbers


class _Damaged(Exception):
    """Says what is wrong within a file."""


class _Cursor:
    """Read numbers and strings one after another, and never past the end of the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.size, self.offset = data, len(data), 0

    def skip(self, num_bytes: int) -> int:
        """Return where the next `num_bytes` bytes begin, and go on behind them."""
        start = self.offset
        if num_bytes > self.size - start:
            raise _Damaged(
                f"{num_bytes:,} bytes are expected at byte {start:,}, and the file has {self.size:,} bytes"
            )
        self.offset += num_bytes
        return start

    def numbers(self, letters: str) -> tuple[Any, ...]:
        form = struct.Struct("<" + letters)
        return form.unpack_from(self.data, self.skip(form.size))

    def string(self) -> str:
        (length,) = self.numbers("Q")
        start = self.skip(length)
        try:
            return self.data[start : self.offset].decode()
        except UnicodeDecodeError as error:
            raise _Damaged(f"the text at byte {start:,} is not UTF-8") from error

    def value(self) -> Any:
        """Return a metadata value: a number, a bool, a string, or a list of one of these."""
        kind = self._kind()
        if kind != GGUFValueType.ARRAY:
            return self._single(kind)
        kind = self._kind()
        (length,) = self.numbers("Q")
        if kind in SCALARS:
            letter = SCALARS[kind]
            start = self.skip(length * struct.calcsize("<" + letter))
            return list(struct.unpack_from(f"<{length}{letter}", self.data, start))
        return [self._single(kind) for _ in range(length)]

    def _single(self, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.STRING:
            return self.string()
        if kind not in SCALARS:
            raise _Damaged("it holds an array of arrays, which no reader knows")
        return self.numbers(SCALARS[kind])[0]

    def _kind(self) -> GGUFValueType:
        (number,) = self.numbers("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            raise _Damaged(f"type {number} at byte {self.offset - 4:,} is no type of the format") from None

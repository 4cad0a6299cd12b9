"""The format of AutoAWQ, version "gemm": 4-bit numbers [in, out], with 8 neighbouring outputs in a word.

    qweight [in, out / 8]    qzeros [in / group, out / 8]    scales [in / group, out]

Bits 4 i to 4 i + 3 of a word hold output COLUMN[i] of its eight: the order in which a kernel of FasterTransformer takes
numbers out of a word two by two. A number q stands for (q - zero) * scale.
Source: `awq/utils/packing_utils.py` of https://github.com/casper-hansen/AutoAWQ
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm.errors import CheckpointError
from minillm.model.config_keys import Key, read_keys
from minillm.model.linear import Projection
from minillm.model.schemes import Parts, Source, joined_bias
from minillm.quantization.formats.parts import (
    FLOATS,
    SOURCE,
    WORD,
    load_each,
    num_groups,
    packed_weight,
    unpack_words,
)
from minillm.quantization.linear import QuantizedLinear

BITS, COLUMNS = 4, 8
COLUMN = (0, 2, 4, 6, 1, 3, 5, 7)
_CONFIG = {
    "bits": Key(int, choices={BITS: BITS}),
    "group_size": Key(int, above=-2),
    "zero_point": Key(bool, choices={True: True}),
    "version": Key(str, choices={"gemm": "gemm", "GEMM": "gemm"}),
}


@dataclass(frozen=True)
class AutoAwq:
    """Load each projection that has no `weight` in 4 bits, and the others as floats."""

    group_size: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "AutoAwq":
        """Return the scheme of a quantization_config. Raises `CheckpointError` for one that is not implemented.

        Keys that are not read say how the weights were chosen, or which kernels to use. `modules_to_not_convert` is
        one of them, because a projection in floats has a `weight`.
        """
        return cls(read_keys(config, _CONFIG, SOURCE)["group_size"])

    def load(self, source: Source, parts: Parts) -> Projection:
        return load_each(source, parts, lambda name: "weight" not in source.suffixes(name), self._load_packed)

    def _load_packed(self, source: Source, part: Parts) -> Projection:
        (name,), (out,) = part.names, part.sizes_out
        if out % COLUMNS:
            raise CheckpointError(
                f"{name!r} has {out} outputs, and a word of this format holds {COLUMNS}: config.json is of another "
                "model"
            )
        groups = num_groups(part, self.group_size)
        numbers = _unpack(source.stored(f"{name}.qweight", (part.size_in, out // COLUMNS), WORD))
        zeros = _unpack(source.stored(f"{name}.qzeros", (groups, out // COLUMNS), WORD))
        scales = source.stored(f"{name}.scales", (groups, out), FLOATS).t().contiguous()
        weight = packed_weight(numbers, scales, zeros, BITS)
        return QuantizedLinear(weight.to(source.device), joined_bias(source, part), "int4")


def _unpack(words: Tensor) -> Tensor:
    """Return the numbers of words [n, out / 8] as [out, n]."""
    in_word = unpack_words(words, BITS).unflatten(1, (-1, COLUMNS))  # [n, out / 8, 8]
    numbers: Tensor = in_word[..., torch.tensor(COLUMN).argsort()].flatten(1)
    return numbers.t().contiguous()

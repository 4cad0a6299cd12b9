"""The format of AutoGPTQ and GPTQModel: numbers [in, out], with 8 (or 4) neighbouring inputs in a word.

    qweight [in * bits / 32, out]    qzeros [in / group, out * bits / 32]    scales [in / group, out]    g_idx [in]

The first number is in the lowest bits of its word. A number q stands for (q - zero) * scale, with the zero and the
scale of group g_idx[column]. With act-order, the columns of a group are not neighbours. Checkpoints of format "gptq"
store zero - 1, and those of "gptq_v2" store the zero.
Source: `nn_modules/qlinear` of https://github.com/ModelCloud/GPTQModel
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from minillm.errors import CheckpointError
from minillm.model.config_keys import Key, read_keys, refusal
from minillm.model.linear import Projection
from minillm.model.schemes import Parts, Source, joined_bias
from minillm.quantization.formats.parts import (
    BITS_OF_WORD,
    FLOATS,
    SOURCE,
    WORD,
    column_order,
    load_each,
    num_groups,
    packed_weight,
    unpack_words,
)
from minillm.quantization.linear import Kind, QuantizedLinear

_CONFIG = {
    "bits": Key(int, choices={4: 4, 8: 8}),
    "group_size": Key(int, above=-2),
    "desc_act": Key(bool, False, False),
    "checkpoint_format": Key(str, "gptq", "gptq", {"gptq": 1, "gptq_v2": 0}, fields=("less",)),
    "pack_dtype": Key(str, "int32", "int32", {"int32": "int32"}),
}
_CHANGES = ("dynamic", "is_marlin_format")  # other settings for some layers; another order of the numbers


@dataclass(frozen=True)
class Gptq:
    """Load each projection that has no `weight` in 4 or 8 bits, and the others as floats.

    Stored zeros are too small by `less`.
    """

    bits: int
    group_size: int
    desc_act: bool
    less: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Gptq":
        """Return the scheme of a quantization_config. Raises `CheckpointError` for one that is not implemented.

        Keys that are not read say how the weights were chosen, or which kernels to use.
        """
        for name in _CHANGES:
            if config.get(name):
                raise refusal(SOURCE, name, config[name], "load a checkpoint without it")
        values = read_keys(config, _CONFIG, SOURCE)
        return cls(*(values[name] for name in ("bits", "group_size", "desc_act", "less")))

    def load(self, source: Source, parts: Parts) -> Projection:
        return load_each(source, parts, lambda name: "weight" not in source.suffixes(name), self._load_packed)

    def _load_packed(self, source: Source, part: Parts) -> Projection:
        (name,), (out,), per_word = part.names, part.sizes_out, BITS_OF_WORD // self.bits
        if part.size_in % per_word or out % per_word:
            raise CheckpointError(
                f"{name!r} is a matrix {[out, part.size_in]}, and a word of this format holds {per_word} numbers: "
                "config.json is of another model"
            )
        groups = num_groups(part, self.group_size)
        words = source.stored(f"{name}.qweight", (part.size_in // per_word, out), WORD)
        numbers = unpack_words(words.t(), self.bits)  # [out, in]
        stored_zeros = unpack_words(
            source.stored(f"{name}.qzeros", (groups, out // per_word), WORD), self.bits
        )
        zeros = (stored_zeros + self.less) & ((1 << self.bits) - 1)  # 0 is stored as the largest number
        scales = source.stored(f"{name}.scales", (groups, out), FLOATS).t().contiguous()
        order = None
        if self.desc_act or "g_idx" in source.suffixes(name):
            order = column_order(
                source.stored(f"{name}.g_idx", (part.size_in,), WORD), groups, f"{name}.g_idx"
            )
        if order is not None:
            numbers, order = numbers[:, order], order.to(source.device)
        weight = packed_weight(numbers, scales, zeros.t().contiguous(), self.bits)
        kind: Kind = "int4" if self.bits == 4 else "int8"
        return QuantizedLinear(weight.to(source.device), self._bias(source, part), kind, order)

    @staticmethod
    def _bias(source: Source, part: Parts) -> torch.Tensor | None:
        """Return the bias. AutoGPTQ stores one of zeros for a projection that has none."""
        name = f"{part.names[0]}.bias"
        extra = not part.bias and "bias" in source.suffixes(part.names[0])
        if extra and source.stored(name, part.sizes_out, FLOATS).count_nonzero():
            raise CheckpointError(
                f"the checkpoint has a tensor {name!r} that is not zero, and config.json has no such bias: the files "
                "are of two models, so download both again"
            )
        return joined_bias(source, part)

"""The format of llm-compressor: integers in 32-bit words, or one number in each element, and a scale per row or group.

    pack-quantized   weight_packed [out, in * bits / 32], weight_shape [2]       4 or 8 bits, activations in floats
    int-quantized    weight [out, in] int8                                       with 8-bit activations, or without
    float-quantized  weight [out, in] float8_e4m3fn                              with 8-bit activations, or without

All have weight_scale, [out, groups] or one number for the whole matrix. An asymmetric weight has weight_zero_point,
which pack-quantized packs along `out`. Numbers are stored without a sign: q + 2^(bits - 1), the first in the lowest
bits of its word.
Source: https://github.com/vllm-project/compressed-tensors
"""

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minillm.errors import CheckpointError
from minillm.model.config_keys import Key, read_keys, refusal, refuse_others
from minillm.model.linear import Projection
from minillm.model.schemes import Parts, Source, joined_bias
from minillm.packed import QuantizedWeight
from minillm.quantization.formats.parts import (
    FLOATS,
    SOURCE,
    WORD,
    column_order,
    load_each,
    num_groups,
    num_words,
    packed_weight,
    unpack_words,
)
from minillm.quantization.linear import Kind, QuantizedLinear

METHOD = "compressed-tensors"
PACKED, INTS, FP8S, NAIVE = "pack-quantized", "int-quantized", "float-quantized", "naive-quantized"
FORMATS = (PACKED, INTS, FP8S, NAIVE)

_SAME = {name: name for name in FORMATS}
_CONFIG = {
    "format": Key(str, None, None, _SAME | {"mixed-precision": None}),
    "config_groups": Key(dict),
    "ignore": Key(list, (), ()),
    "quantization_status": Key(str, "compressed", "compressed", {"compressed": "compressed"}),
}
_GROUP = {
    "targets": Key(list),
    "weights": Key(dict),
    "input_activations": Key(dict, None, None),
    "format": Key(str, None, None, _SAME),
}
_ORDERS = ("weight", "static", "group", "dynamic")  # whether GPTQ has sorted the columns; the tensors say how
_WEIGHTS = {
    "num_bits": Key(int, high=64),
    "type": Key(str, "int", choices={"int": "int", "float": "float"}),
    "symmetric": Key(bool, True),
    "strategy": Key(str, None, None, {name: name for name in ("tensor", "channel", "group")}),
    "group_size": Key(int, None, None, above=-2),
    "dynamic": Key(bool, False, choices={False: False}),
    "actorder": Key(str, None, None, {name: name for name in _ORDERS}),
}
_ACTIVATIONS = {
    "num_bits": Key(int, choices={8: 8}),
    "type": Key(str, "int", choices={"int": "int", "float": "float"}),
    "symmetric": Key(bool, True, choices={True: True}),
    "strategy": Key(str, choices={"token": "token"}),
    "dynamic": Key(bool, False, choices={True: True}),
}
_NOTES = ("observer", "observer_kwargs", "zp_dtype", "global_compression_ratio", "quant_method")
_HINT = "it may change what the weights mean: load the unquantised checkpoint"
_HINTS = {
    "kv_cache_scheme": 'the cache is not quantised by a checkpoint: set it to null, and use kv_cache_dtype="int8" or '
    '"fp8"',
    "sparsity_config": "weights with zeros left out are not implemented: load a checkpoint without sparsity",
}
_REPEATS = re.compile(r"(?<!\\)[*+{?]")
_REPEATED_GROUP = re.compile(r"\)[*+{?]")


@dataclass(frozen=True)
class Group:
    """Describe how the projections that one of `targets` names are stored."""

    targets: tuple[str, ...]
    format: str
    bits: int
    symmetric: bool
    group_size: int | None  # None: one scale per row
    per_tensor: bool
    kind: Kind

    def load(self, source: Source, part: Parts) -> Projection:
        """Return one matrix of a checkpoint as a projection."""
        read = self._read_packed if self.format == PACKED else self._read_plain
        weight, order = read(source, part)
        order = None if order is None else order.to(source.device)
        return QuantizedLinear(weight.to(source.device), joined_bias(source, part), self.kind, order)

    def _read_packed(self, source: Source, part: Parts) -> tuple[QuantizedWeight, Tensor | None]:
        (name,), (out,), groups = part.names, part.sizes_out, self._num_groups(part)
        _check_shape(source, name, (out, part.size_in))
        words = source.stored(f"{name}.weight_packed", (out, num_words(part.size_in, self.bits)), WORD)
        numbers = unpack_words(words, self.bits)[:, : part.size_in]
        zero, order = None, None
        if not self.symmetric:
            packed = source.stored(f"{name}.weight_zero_point", (num_words(out, self.bits), groups), WORD)
            zero = unpack_words(packed.t(), self.bits)[:, :out].t()
        if "weight_g_idx" in source.suffixes(name):
            g_idx = source.stored(f"{name}.weight_g_idx", (part.size_in,), (torch.int32, torch.int64))
            order = column_order(g_idx, groups, f"{name}.weight_g_idx")
        if order is not None:
            numbers = numbers[:, order]
        return packed_weight(numbers, self._scale(source, name, out, groups), zero, self.bits), order

    def _read_plain(self, source: Source, part: Parts) -> tuple[QuantizedWeight, None]:
        (name,), (out,), groups = part.names, part.sizes_out, self._num_groups(part)
        dtype = torch.float8_e4m3fn if self.kind in ("fp8", "w8a8_fp8") else torch.int8
        numbers = source.stored(f"{name}.weight", (out, part.size_in), (dtype,)).clone()
        scale, zero = self._scale(source, name, out, groups), None
        if not self.symmetric:
            shape = (1,) if self.per_tensor else (out, groups)
            zero = source.stored(f"{name}.weight_zero_point", shape, (torch.int8,))
            zero = zero.expand(out, groups).to(scale.dtype)
        return QuantizedWeight(numbers, scale, zero), None

    def _num_groups(self, part: Parts) -> int:
        if self.bits == 4 and part.size_in % 2:
            raise CheckpointError(
                f"{part.names[0]!r} has rows of {part.size_in} weights of 4 bits, which do not fill whole bytes: load "
                "a checkpoint in 8 bits"
            )
        return num_groups(part, self.group_size)

    def _scale(self, source: Source, name: str, out: int, groups: int) -> Tensor:
        shape = (1,) if self.per_tensor else (out, groups)
        return source.stored(f"{name}.weight_scale", shape, FLOATS).expand(out, groups).clone()


@dataclass(frozen=True)
class CompressedTensors:
    """Load each projection as the group says whose targets name it, and as floats if none does or `ignore` names it."""

    groups: tuple[Group, ...]
    ignore: tuple[str, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CompressedTensors":
        """Return the scheme of a quantization_config. Raises `CheckpointError` for one that is not implemented."""
        refuse_others(config, (*_CONFIG, *_NOTES), SOURCE, _HINT, _HINTS)
        values = read_keys(config, _CONFIG, SOURCE)
        if not values["config_groups"]:
            raise CheckpointError(f"{SOURCE}: config_groups is empty: it must say how the weights are stored")
        groups = [
            _group(table, values["format"], f"{SOURCE}.config_groups.{name}")
            for name, table in values["config_groups"].items()
        ]
        return cls(tuple(groups), _patterns(values["ignore"], "ignore", SOURCE))

    def load(self, source: Source, parts: Parts) -> Projection:
        return load_each(source, parts, lambda name: self._group_of(name) is not None, self._load_packed)

    def _load_packed(self, source: Source, part: Parts) -> Projection:
        group = self._group_of(part.names[0])
        assert group is not None
        return group.load(source, part)

    def _group_of(self, name: str) -> Group | None:
        """Return the group of a projection. An exact name counts before a pattern, and a pattern before "Linear"."""
        if any(_rank(name, pattern) is not None for pattern in self.ignore):
            return None
        ranked = [
            (rank, i)
            for i, group in enumerate(self.groups)
            for target in group.targets
            if (rank := _rank(name, target)) is not None
        ]
        return self.groups[min(ranked)[1]] if ranked else None


def _rank(name: str, pattern: str) -> int | None:
    """Return how closely a pattern names a projection: 0 is exact, 2 is its class; None if it does not."""
    if pattern == name:
        return 0
    if pattern.startswith("re:"):
        return 1 if re.match(pattern.removeprefix("re:"), name) else None
    return 2 if pattern == "Linear" else None


def _group(table: Any, format_of_all: str | None, source: str) -> Group:
    table = _table(table, source)
    refuse_others(table, _GROUP, source, _HINT, {})
    values = read_keys(table, _GROUP, source)
    stored_as = values["format"] or format_of_all
    if stored_as is None:
        raise CheckpointError(f"{source} has no 'format', and quantization_config has none for all groups")
    weights = _settings(values["weights"], _WEIGHTS, f"{source}.weights")
    strategy = weights["strategy"] or {None: "tensor", -1: "channel"}.get(weights["group_size"], "group")
    if strategy == "group" and (weights["group_size"] or 0) < 1:
        raise CheckpointError(
            f"{source}.weights: group_size={weights['group_size']} with strategy='group': it must be above 0"
        )
    return Group(
        targets=_patterns(values["targets"], "targets", source),
        format=stored_as,
        bits=weights["num_bits"],
        symmetric=weights["symmetric"],
        group_size=weights["group_size"] if strategy == "group" else None,
        per_tensor=strategy == "tensor",
        kind=_kind(stored_as, weights, values["input_activations"], strategy, source),
    )


def _kind(stored_as: str, weights: Mapping[str, Any], activations: Any, strategy: str, source: str) -> Kind:
    """Return the operation for a group's numbers. Raises `CheckpointError` for a combination that has none."""
    bits, is_float = weights["num_bits"], weights["type"] == "float"
    known = (4, 8) if stored_as == PACKED else (8,)
    if bits not in known:
        words = " and ".join(map(str, known))
        raise refusal(f"{source}.weights", "num_bits", bits, f"implemented for {stored_as}: {words}")
    if stored_as != NAIVE and is_float != (stored_as == FP8S):
        raise refusal(f"{source}.weights", "type", weights["type"], f"{stored_as} stores other numbers")
    if is_float and not weights["symmetric"]:
        raise refusal(f"{source}.weights", "symmetric", False, "float8 numbers have a sign and no zero point")
    if stored_as == PACKED and strategy == "tensor":
        raise refusal(
            f"{source}.weights", "strategy", strategy, f"implemented for {PACKED}: 'group', 'channel'"
        )
    if activations is None:
        return "fp8" if is_float else "int4" if bits == 4 else "int8"
    if stored_as == PACKED:
        raise refusal(source, "input_activations", activations, f"{PACKED} keeps activations in floats")
    inputs = _settings(activations, _ACTIVATIONS, f"{source}.input_activations")
    if inputs["type"] != weights["type"]:
        raise refusal(
            f"{source}.input_activations", "type", inputs["type"], f"the weights are {weights['type']}"
        )
    if strategy == "group" or not weights["symmetric"]:
        raise refusal(
            f"{source}.weights",
            "strategy",
            strategy,
            "with 8-bit activations, weights are symmetric with one scale per row or tensor",
        )
    return "w8a8_fp8" if is_float else "w8a8"


def _settings(table: Any, keys: Mapping[str, Key], source: str) -> dict[str, Any]:
    table = _table(table, source)
    refuse_others(table, (*keys, *_NOTES), source, _HINT, {})
    return read_keys(table, keys, source)


def _table(value: Any, source: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"{source}={reprlib.repr(value)} is not a table")
    return value


def _patterns(values: Any, key: str, source: str) -> tuple[str, ...]:
    """Return a list of names, classes, and regular expressions that begin with "re:".

    A checkpoint's author writes these, so an expression that may search forever is refused.
    """
    for value in values:
        if not isinstance(value, str):
            raise CheckpointError(f"{source}: {key} has {reprlib.repr(value)}, which is not text")
        try:
            re.compile(value.removeprefix("re:") if value.startswith("re:") else "")
        except re.error as error:
            raise CheckpointError(
                f"{source}: {key} has {reprlib.repr(value)}, which is no pattern ({error})"
            ) from error
        if value.startswith("re:") and (_REPEATED_GROUP.search(value) or len(_REPEATS.findall(value)) > 4):
            raise CheckpointError(
                f"{source}: {key} has {reprlib.repr(value)}, and the search for it could take years: write it with at "
                "most four repetitions (*, +, ? or {}), and none of a group"
            )
    return tuple(values)


def _check_shape(source: Source, name: str, shape: tuple[int, int]) -> None:
    """Compare the shape that the file gives for the unpacked matrix with the one that config.json implies."""
    found = source.stored(f"{name}.weight_shape", (2,), (torch.int64, torch.int32)).tolist()
    if tuple(found) != shape:
        raise CheckpointError(
            f"{name}.weight_shape says {found}, and config.json implies {list(shape)}: the files are of two models, so "
            "download both again"
        )

"""Write a quantised model as a folder that `transformers`, vLLM and `LLM` load: the format of compressed-tensors.

`formats/compressed_tensors.py` says how the tensors look. A folder appears when it is complete: until then its files
are in FOLDER.partial, one file of weights for each layer, and a writer that starts again finds them there.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from minillm import store
from minillm.config import ModelConfig
from minillm.model.checkpoint import INDEX, save_tensors
from minillm.model.families import FAMILIES, QUANTIZATION, Names
from minillm.model.linear import Linear, Projection
from minillm.model.stored import CONFIG, open_model
from minillm.model.transformer import Block, Norm, Transformer, Weights
from minillm.packed import QuantizedWeight, pack_int4
from minillm.quantization.formats.compressed_tensors import FP8S, INTS, METHOD, PACKED
from minillm.quantization.formats.parts import BITS_OF_WORD
from minillm.quantization.linear import Joined, Kind, QuantizedLinear

FORMAT: dict[Kind, str] = {"int4": PACKED, "int8": PACKED, "w8a8": INTS, "fp8": FP8S, "w8a8_fp8": FP8S}
PARTIAL, PLAN = ".partial", "plan.json"


@dataclass(frozen=True)
class Layout:
    """Describe the numbers of a projection. `group_size` is None for one scale per row."""

    kind: Kind
    group_size: int | None = None
    symmetric: bool = True

    @classmethod
    def of(cls, projection: QuantizedLinear) -> "Layout":
        """Return the layout of a projection."""
        weight = projection.weight
        group_size = None if weight.scale.shape[1] == 1 else weight.group_size
        return cls(projection.kind, group_size, weight.zero is None)

    def config_group(self) -> dict[str, Any]:
        """Return the entry of `config_groups` for this layout, without its targets."""
        number = "float" if FORMAT[self.kind] == FP8S else "int"
        weights = {
            "num_bits": 4 if self.kind == "int4" else 8,
            "type": number,
            "symmetric": self.symmetric,
            "strategy": "channel" if self.group_size is None else "group",
            "group_size": self.group_size,
            "dynamic": False,
            "observer": "minmax",
        }
        tokens = {"num_bits": 8, "type": number, "symmetric": True, "strategy": "token", "dynamic": True}
        with_tokens = self.kind in ("w8a8", "w8a8_fp8")
        return {
            "format": FORMAT[self.kind],
            "weights": weights,
            "input_activations": tokens if with_tokens else None,
            "output_activations": None,
        }


def export(model: Transformer, source: Path | str, out: Path | str) -> None:
    """Write a model with quantised projections as a folder, with the config.json and tokenizer of `source`.

    `source` is the folder or GGUF file that the model was loaded from. Raises `ValueError` for a model without
    quantised projections, for one that the format cannot hold (GPT-2, act-order, zeros that are not integers), and if
    `out` is there already.
    """
    stored = open_model(Path(source))
    config = quantization_config(layouts(model))
    writer = FolderWriter(out, stored.config_json(), config)
    for layer, block in enumerate(model.weights.blocks):
        writer.add(f"layer-{layer:05d}", block_tensors(model.config, layer, block))
    writer.add("outer", outer_tensors(model.config, model.weights))
    stored.copy_companions(writer.folder)
    writer.finish()


def layouts(model: Transformer) -> dict[str, Layout | None]:
    """Return the layout of each matrix that a checkpoint of the model has, by name; None for floats."""
    head = FAMILIES[model.config.family].names.lm_head
    found: dict[str, Layout | None] = {head: _layout(model.weights.lm_head)}
    for layer, block in enumerate(model.weights.blocks):
        for part_names, _, projection in _projections(model.config, layer, block):
            parts = projection.parts if isinstance(projection, Joined) else [projection] * len(part_names)
            found |= {name: _layout(part) for name, part in zip(part_names, parts, strict=True)}
    return found


def quantization_config(layouts: Mapping[str, Layout | None]) -> dict[str, Any]:
    """Return the quantization_config of a checkpoint whose matrices have these layouts.

    Raises `ValueError` if all of them are floats.
    """
    names: dict[Layout, list[str]] = {}
    for name, layout in layouts.items():
        if layout is not None:
            names.setdefault(layout, []).append(name)
    if not names:
        raise ValueError("the model has no quantised projection: quantise it first, or copy its folder")
    formats = {FORMAT[layout.kind] for layout in names}
    return {
        "quant_method": METHOD,
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": [name for name, layout in layouts.items() if layout is None],
        "config_groups": {
            f"group_{i}": {"targets": ["Linear"] if len(names) == 1 else targets, **layout.config_group()}
            for i, (layout, targets) in enumerate(names.items())
        },
    }


def block_tensors(config: ModelConfig, layer: int, block: Block) -> dict[str, Tensor]:
    """Return the tensors of one layer under the checkpoint's names; floats in the dtype of `config`.

    Raises `ValueError` for a projection that the format cannot hold.
    """
    names, dtype = _names(config), getattr(torch, config.dtype)
    tensors: dict[str, Tensor] = {}
    for part_names, sizes, projection in _projections(config, layer, block):
        tensors |= projection_tensors(part_names, sizes, projection, dtype)
    norms = (
        (names.attention_norm, block.attention_norm),
        (names.mlp_norm, block.mlp_norm),
        (names.q_norm, block.q_norm),
        (names.k_norm, block.k_norm),
    )
    for name, norm in norms:
        if name is not None and norm is not None:
            tensors |= _norm_tensors(name.format(i=layer), norm, dtype)
    return tensors


def outer_tensors(config: ModelConfig, weights: Weights) -> dict[str, Tensor]:
    """Return the tensors outside the layers: the embedding, the last norm, and the head if it is not tied."""
    names, dtype = _names(config), getattr(torch, config.dtype)
    tensors = {f"{names.embed}.weight": _float(weights.embed.weight, dtype)}
    tensors |= _norm_tensors(names.final_norm, weights.final_norm, dtype)
    if not config.tie_word_embeddings:
        tensors |= projection_tensors((names.lm_head,), (config.vocab_size,), weights.lm_head, dtype)
    return tensors


def projection_tensors(
    names: tuple[str, ...], sizes: tuple[int, ...], projection: Projection, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the tensors of a projection that joins the matrices `names` with `sizes` outputs.

    Scales keep their dtype; other floats get `dtype`. Raises `ValueError` for a projection that the format cannot hold.
    """
    if isinstance(projection, Joined):
        tensors: dict[str, Tensor] = {}
        for name, size, part in zip(names, sizes, projection.parts, strict=True):
            tensors |= projection_tensors((name,), (size,), part, dtype)
        return tensors
    bits = None  # of numbers that are packed into words
    if isinstance(projection, Linear):
        rows = {"weight": projection.weight.t().to(dtype)}
    elif isinstance(projection, QuantizedLinear):
        rows = _quantized_rows(names[0], projection)
        bits = projection.weight.bits if FORMAT[projection.kind] == PACKED else None
    else:
        raise ValueError(
            f"{names[0]}: a {type(projection).__name__} has no stored form: export the model itself"
        )
    if projection.bias is not None:
        rows["bias"] = projection.bias.to(dtype)
    return {
        f"{name}.{suffix}": tensor
        for name, matrix in zip(names, _split(rows, sizes), strict=True)
        for suffix, tensor in (matrix if bits is None else _in_words(matrix, bits)).items()
    }


def _split(rows: Mapping[str, Tensor], sizes: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Return the rows of each matrix of a projection that has joined them."""
    parts = [[part.contiguous() for part in tensor.split(sizes)] for tensor in rows.values()]
    return [dict(zip(rows, each, strict=True)) for each in zip(*parts, strict=True)]


def _quantized_rows(name: str, projection: QuantizedLinear) -> dict[str, Tensor]:
    """Return the numbers, scales and zeros of a projection, with a row for each output."""
    weight = projection.weight
    if projection.order is not None:
        raise ValueError(
            f"{name} has its columns in another order (act-order), which compressed-tensors cannot store: quantise "
            "again without act-order or with static groups"
        )
    rows = {"weight": weight.unpacked(), "weight_scale": weight.scale}
    if weight.zero is not None:
        rows["weight_zero_point"] = _whole_zeros(name, weight)
    return rows


def _whole_zeros(name: str, weight: QuantizedWeight) -> Tensor:
    """Return the zeros as stored integers without a sign, uint8 [out, groups]."""
    assert weight.zero is not None
    zero = weight.zero.float() + (0 if weight.bits == 4 else 128)
    highest = 2**weight.bits - 1
    if not torch.equal(zero, zero.round().clamp(0, highest)):
        raise ValueError(
            f"{name} has zeros that are not integers from 0 to {highest}, which compressed-tensors cannot store: "
            "quantise the floats instead"
        )
    return zero.to(torch.uint8)


def _in_words(part: dict[str, Tensor], bits: int) -> dict[str, Tensor]:
    """Return the tensors of one matrix with its numbers and zeros packed into words."""
    numbers = part.pop("weight")
    without_sign = numbers if bits == 4 else numbers.view(torch.uint8) ^ 128
    packed = {"weight_packed": pack_words(without_sign, bits), "weight_shape": torch.tensor(numbers.shape)}
    if "weight_zero_point" in part:
        part["weight_zero_point"] = pack_words(part["weight_zero_point"].t(), bits).t().contiguous()
    return part | packed


def pack_words(numbers: Tensor, bits: int) -> Tensor:
    """Return numbers without a sign [..., n] in words of 32 bits, the first in the lowest bits. The rest is zeros."""
    missing = -numbers.shape[-1] % (BITS_OF_WORD // bits)
    numbers = F.pad(numbers, (0, missing))
    as_bytes = pack_int4(numbers) if bits == 4 else numbers
    words: Tensor = as_bytes.flatten().view(torch.int32).unflatten(0, (*numbers.shape[:-1], -1))
    return words


def _projections(
    config: ModelConfig, layer: int, block: Block
) -> Iterator[tuple[tuple[str, ...], tuple[int, ...], Projection]]:
    """Yield each projection of a layer with the names and the numbers of outputs of its parts."""
    names = _names(config)
    projections: dict[str, Projection] = {}
    block.with_projections(lambda role, projection: projections.setdefault(role, projection))
    sizes = {
        "qkv": (config.q_size, config.kv_size, config.kv_size),
        "o": (config.hidden_size,),
        "gate_up": (config.intermediate_size,) * len(names.gate_up),
        "down": (config.hidden_size,),
    }
    for role, projection in projections.items():
        parts = getattr(names, role)
        listed = (parts,) if isinstance(parts, str) else parts
        yield tuple(part.format(i=layer) for part in listed), sizes[role], projection


def _names(config: ModelConfig) -> Names:
    names = FAMILIES[config.family].names
    if names.transposed:
        raise ValueError(
            f"models of family {config.family!r} cannot be exported: compressed-tensors is for Linear layers, and "
            "skips theirs (Conv1D) without a word. Quantise on the fly instead: LLM(..., quantization=...)"
        )
    return names


def _layout(projection: Projection) -> Layout | None:
    return Layout.of(projection) if isinstance(projection, QuantizedLinear) else None


def _norm_tensors(name: str, norm: Norm, dtype: torch.dtype) -> dict[str, Tensor]:
    biases = {} if norm.bias is None else {f"{name}.bias": _float(norm.bias, dtype)}
    return {f"{name}.weight": _float(norm.weight, dtype)} | biases


def _float(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype).contiguous()


class FolderWriter:
    """Write a model folder one shard at a time; it appears under its name when `finish` has written the last file.

    Until then `folder` is OUT.partial. `config_json` is the content of config.json without a quantization_config, and
    `settings` is what else the weights depend on. A writer with the same three finds its shards again, by name, in
    `done`. Raises `ValueError` if OUT is there already, or if OUT.partial is of another model or other settings.
    """

    def __init__(
        self,
        out: Path | str,
        config_json: Mapping[str, Any],
        quantization_config: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.out = Path(out)
        self.folder = self.out.with_name(self.out.name + PARTIAL)
        if self.out.exists() and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise ValueError(f"{self.out} is there already: delete it, or choose another folder")
        self.quantization_config = quantization_config
        self._config = {**config_json, QUANTIZATION: quantization_config}
        self._begin({"config": self._config, "settings": dict(settings or {})})

    def _begin(self, plan: dict[str, Any]) -> None:
        plan = json.loads(json.dumps(plan))  # as it will be read
        path = self.folder / PLAN
        if not self.folder.exists():
            store.write(path, json.dumps(plan, indent=2))
        elif not path.exists() or store.read(path) != plan:
            raise ValueError(
                f"{self.folder} holds a part of another model, or of this one with other settings: delete it, or "
                "choose another folder"
            )
        for draft in self.folder.glob("*.tmp"):
            draft.unlink()

    @property
    def done(self) -> frozenset[str]:
        """Return the names of the shards that are written."""
        return frozenset(path.stem for path in self.folder.glob("*.safetensors"))

    def add(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write the tensors of one shard, such as "layer-00003". An old shard of that name is replaced."""
        draft = self.folder / f"{name}.tmp"
        save_tensors(tensors, draft)
        draft.replace(self._path(name))

    def read(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a shard that is written."""
        tensors: dict[str, Tensor] = load_file(self._path(name))
        return tensors

    def finish(self) -> None:
        """Write the index and config.json, and give the folder its name."""
        weight_map: dict[str, str] = {}
        total = 0
        for name in sorted(self.done):
            tensors = self.read(name)
            weight_map |= dict.fromkeys(tensors, self._path(name).name)
            total += sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        store.write(self.folder / INDEX, json.dumps(index, indent=2))
        store.write(self.folder / CONFIG, json.dumps(self._config, indent=2))
        self.folder.replace(self.out)
        (self.out / PLAN).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

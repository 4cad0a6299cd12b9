"""Checkpoints in the formats of other programs, packed number by number as each format defines it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minillm.batch import Batch, Chunk
from minillm.model.stored import open_model
from minillm.model.transformer import Transformer
from minillm.quantization.schemes import scheme_for
from tests.model.zoo import CONTEXT, sample, tokens

WEIGHTS = "model.safetensors"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
CPU = torch.device("cpu")
PROMPT = tokens(12)

Packer = Callable[[str, Tensor, torch.Generator], tuple[dict[str, Tensor], Tensor]]  # -> stored, dequantised


def loaded(folder: Path, wanted: str | None = None) -> Transformer:
    """The model of a folder as `LLM` loads it."""
    stored = open_model(folder)
    return stored.weights(CPU, torch.float32, scheme=scheme_for(stored.quantization_config, wanted))


def logits(model: Transformer, ids: list[int] = PROMPT, name: str = "llama") -> Tensor:
    return model.logits(model(Batch.of([Chunk(ids, 0, [0])], CONTEXT), sample(name).no_cache()))


def is_linear(name: str) -> bool:
    return name.startswith("model.layers.") and name.endswith("_proj.weight")


def two_folders(name: str, tmp_path: Path, config: dict, pack: Packer) -> tuple[Path, Path]:
    """One model twice: as a format stores it, and with the same weights in floats."""
    packed, floats = (Path(shutil.copytree(sample(name).folder, tmp_path / kind)) for kind in ("q", "f"))
    tensors, random = load_file(packed / WEIGHTS), torch.Generator().manual_seed(0)
    both: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for key, tensor in sorted(tensors.items()):
        if is_linear(key):
            module = key.removesuffix(".weight")
            stored, dequantised = pack(module, tensor, random)
            both[0].update({f"{module}.{suffix}": each.contiguous() for suffix, each in stored.items()})
            both[1][key] = dequantised.float().contiguous()
        else:
            for each in both:
                each[key] = tensor
    for folder, content in zip((packed, floats), both, strict=True):
        save_file(content, folder / WEIGHTS, metadata={"format": "pt"})
    set_quantization(packed, config)
    return packed, floats


def set_quantization(folder: Path, config: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def words(numbers: np.ndarray, bits: int, order: tuple[int, ...] | None = None) -> Tensor:
    """Numbers [n, k] in words [n, k * bits / 32]: number `order[i]` of a word's is in bits i * bits and up."""
    per_word = 32 // bits
    order = order or tuple(range(per_word))
    numbers = np.pad(numbers, ((0, 0), (0, -numbers.shape[1] % per_word)))
    packed = np.zeros((len(numbers), numbers.shape[1] // per_word), np.uint32)
    for i in range(per_word):
        packed |= numbers[:, order[i] :: per_word].astype(np.uint32) << np.uint32(i * bits)
    return torch.from_numpy(packed.view(np.int32))


def random_numbers(
    weight: Tensor, bits: int, groups: int, random: torch.Generator, symmetric: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers [out, in], and zeros and scales [out, groups]: any that the format can hold."""
    out, size_in = weight.shape
    q = torch.randint(0, 2**bits, (out, size_in), generator=random)
    shape = (out, groups)
    zero = (
        torch.full(shape, 2 ** (bits - 1))
        if symmetric
        else torch.randint(0, 2**bits, shape, generator=random)
    )
    scale = (torch.rand(shape, generator=random) + 0.5) * 0.4 / 2**bits
    return q, zero, scale.half()


def awq(group_size: int) -> Packer:
    def pack(module: str, weight: Tensor, random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        groups = 1 if group_size == -1 else weight.shape[1] // group_size
        q, zero, scale = random_numbers(weight, 4, groups, random)
        stored = {
            "qweight": words(q.t().numpy(), 4, AWQ_ORDER),
            "qzeros": words(zero.t().numpy(), 4, AWQ_ORDER),
            "scales": scale.t(),
        }
        each = weight.shape[1] // groups
        return stored, (q - zero.repeat_interleave(each, 1)) * scale.float().repeat_interleave(each, 1)

    return pack


def gptq(
    bits: int, group_size: int, *, less: int = 1, symmetric: bool = False, act_order: Callable | None = None
) -> Packer:
    """`act_order(module, g_idx, random)` returns another order of the groups of the columns."""

    def pack(module: str, weight: Tensor, random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        size_in = weight.shape[1]
        groups = 1 if group_size == -1 else size_in // group_size
        q, zero, scale = random_numbers(weight, bits, groups, random, symmetric)
        g_idx = torch.arange(size_in, dtype=torch.int32) // (size_in // groups)
        if act_order is not None:
            g_idx = act_order(module, g_idx, random)
        stored = {
            "qweight": words(q.numpy(), bits).t(),
            "qzeros": words(((zero - less) % 2**bits).t().numpy(), bits),
            "scales": scale.t(),
            "g_idx": g_idx,
        }
        return stored, (q - zero[:, g_idx.long()]) * scale.float()[:, g_idx.long()]

    return pack


def compressed(format: str, bits: int, group_size: int | None, symmetric: bool = True) -> Packer:
    """Integers in the format of compressed-tensors."""

    def pack(module: str, weight: Tensor, random: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        groups = 1 if group_size is None else weight.shape[1] // group_size
        q, zero, scale = random_numbers(weight, bits, groups, random, symmetric)
        stored = {"weight_scale": scale}
        if format == "pack-quantized":
            stored["weight_packed"] = words(q.numpy(), bits)
            stored["weight_shape"] = torch.tensor(weight.shape)
            if not symmetric:
                stored["weight_zero_point"] = words(zero.t().numpy(), bits).t()
        else:
            stored["weight"] = (q - 128).to(torch.int8)
            if not symmetric:
                stored["weight_zero_point"] = (zero - 128).to(torch.int8)
        each = weight.shape[1] // groups
        return stored, (q - zero.repeat_interleave(each, 1)) * scale.float().repeat_interleave(each, 1)

    return pack


def compressed_config(
    format: str = "pack-quantized",
    bits: int = 4,
    group_size: int | None = 32,
    symmetric: bool = True,
    activations: dict | None = None,
    **changes: object,
) -> dict:
    weights = {
        "num_bits": bits,
        "type": "float" if format == "float-quantized" else "int",
        "symmetric": symmetric,
        "strategy": "channel" if group_size is None else "group",
        "group_size": group_size,
        "dynamic": False,
        "observer": "minmax",
        "actorder": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": 1.5,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": activations,
                "output_activations": None,
            }
        },
    } | changes


TOKENS = {
    "num_bits": 8,
    "type": "int",
    "symmetric": True,
    "strategy": "token",
    "dynamic": True,
    "group_size": None,
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 32,
    "desc_act": False,
    "sym": True,
    "checkpoint_format": "gptq",
}


def same_order(module, g_idx, random):
    """One order for all matrices that read the same x, as GPTQ gives q, k and v."""
    generator = torch.Generator().manual_seed(len(g_idx))
    return g_idx[torch.randperm(len(g_idx), generator=generator)]


def own_order(module, g_idx, random):
    return g_idx[torch.randperm(len(g_idx), generator=random)]


CASES = {
    "awq": (AWQ, awq(32)),
    "awq-rows": (AWQ | {"group_size": -1, "version": "GEMM"}, awq(-1)),
    "gptq": (GPTQ, gptq(4, 32)),
    "gptq-symmetric": (
        GPTQ | {"model_file_base_name": "model", "damp_percent": 0.01},
        gptq(4, 32, symmetric=True),
    ),
    "gptq-rows": (GPTQ | {"group_size": -1}, gptq(4, -1)),
    "gptq-v2": (GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(4, 32, less=0)),
    "gptq-8-bits": (GPTQ | {"bits": 8, "group_size": 16}, gptq(8, 16)),
    "gptq-8-bits-symmetric": (GPTQ | {"bits": 8}, gptq(8, 32, symmetric=True)),
    "gptq-act-order": (GPTQ | {"desc_act": True}, gptq(4, 32, act_order=same_order)),
    "gptq-own-orders": (GPTQ | {"desc_act": True}, gptq(4, 32, act_order=own_order)),
    "gptq-8-bits-own-orders": (GPTQ | {"bits": 8, "desc_act": True}, gptq(8, 32, act_order=own_order)),
    "W4A16": (compressed_config(), compressed("pack-quantized", 4, 32)),
    "W4A16-rows": (compressed_config(group_size=None), compressed("pack-quantized", 4, None)),
    "W4A16-asymmetric": (compressed_config(symmetric=False), compressed("pack-quantized", 4, 32, False)),
    "W8A16": (compressed_config(bits=8, group_size=None), compressed("pack-quantized", 8, None)),
    "W8A16-groups": (compressed_config(bits=8), compressed("pack-quantized", 8, 32)),
    "W8A16-asymmetric": (
        compressed_config(bits=8, symmetric=False),
        compressed("pack-quantized", 8, 32, False),
    ),
    "int-quantized": (
        compressed_config("int-quantized", 8, None),
        compressed("int-quantized", 8, None),
    ),
    "naive-quantized-asymmetric": (
        compressed_config("naive-quantized", 8, 16, False),
        compressed("int-quantized", 8, 16, False),
    ),
}

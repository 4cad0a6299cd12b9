"""Write GGUF files as llama.cpp's converter does, with the `gguf` library: the tests' own converter."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from tokenizers import Tokenizer as Backend
from torch import Tensor

from minillm.model.gguf_model import _BLOCK_TENSORS, _TENSORS

ARCHITECTURE = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # by model_type


def write_gguf(
    path: Path,
    model: Any,
    kind: Type = Type.F32,
    metadata: Mapping[str, Any] | None = None,
    leave_out: str = "",
    add: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Path:
    """Write a model of `transformers`, its matrices as `kind`. `metadata` changes and adds keys; None removes one."""
    architecture = ARCHITECTURE[model.config.model_type]
    writer = gguf.GGUFWriter(path, architecture, **options)
    for key, value in (settings(model.config, architecture) | dict(metadata or {})).items():
        if value is not None:
            _add(writer, key, value)
    tensors = {
        stored_name(name): permuted(name, tensor, model.config) for name, tensor in weights(model).items()
    }
    for name, tensor in {**tensors, **(add or {})}.items():
        if name != leave_out:
            add_tensor(writer, name, tensor, kind if tensor.ndim > 1 else Type.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def weights(model: Any) -> dict[str, Tensor]:
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    if factors := rope_factors(model.config):
        state["rope_freqs.weight"] = torch.tensor(factors)
    return state


def add_tensor(writer: gguf.GGUFWriter, name: str, tensor: Tensor, kind: Type) -> None:
    data = gguf.quants.quantize(np.ascontiguousarray(tensor.float().numpy()), kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def settings(config: Any, architecture: str) -> dict[str, Any]:
    heads, rope = config.num_attention_heads, config.rope_parameters
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": head_dim,
        "vocab_size": config.vocab_size,
    }
    if rope["rope_type"] in ("linear", "yarn"):
        keys |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if config.model_type == "mistral" and config.sliding_window:
        keys["attention.sliding_window"] = config.sliding_window
    return {f"{architecture}.{key}": value for key, value in keys.items()} | {
        "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
    }


def tokenizer_metadata(backend: Backend, model: str, **changes: Any) -> dict[str, Any]:
    """Return the metadata that llama.cpp's converter writes for a tokenizer.json."""
    content = json.loads(backend.to_str())
    vocab = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
    types = dict.fromkeys(vocab, 1)
    types |= {token["content"]: 3 if token["special"] else 4 for token in content["added_tokens"]}
    tokens = sorted(vocab, key=vocab.__getitem__)
    keys: dict[str, Any] = {"model": model, "tokens": tokens}
    if model == "llama":
        types |= {token: 6 for token in tokens if token.startswith("<0x")} | {"<unk>": 2}
        merged = {
            left + right: rank
            for rank, (left, right) in reversed(list(enumerate(content["model"]["merges"])))
        }
        keys["scores"] = [-float(merged.get(token, 10**6)) for token in tokens]
    else:
        keys["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    keys["token_type"] = [types[token] for token in tokens]
    found = {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items()}
    return {key: value for key, value in found.items() if value is not None}


def stored_name(name: str) -> str:
    for ours, theirs in _TENSORS.items():
        name = re.sub(rf"^{re.escape(theirs)}\.", f"{ours}.", name)
    for ours, theirs in _BLOCK_TENSORS.items():
        name = re.sub(rf"^model\.layers\.(\d+)\.{re.escape(theirs)}\.", rf"blk.\1.{ours}.", name)
    return name


def permuted(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Order the rows of q and k as `LlamaModel.permute` of llama.cpp's converter does."""
    part = re.search(r"\.([qk])_proj\.", name)
    if part is None or ARCHITECTURE[config.model_type] != "llama":
        return tensor
    heads = config.num_attention_heads if part[1] == "q" else config.num_key_value_heads
    rows = tensor.numpy()
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return torch.from_numpy(np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape)))


def rope_factors(config: Any) -> list[float]:
    """The table that the converter writes for `rope_type` "llama3" (`generate_extra_tensors` of LlamaModel)."""
    rope = config.rope_parameters
    if rope["rope_type"] != "llama3":
        return []
    dim = config.head_dim
    frequencies = 1.0 / rope["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    factor, old = rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for frequency in frequencies.tolist():
        wavelength = 2 * np.pi / frequency
        smooth = (old / wavelength - low) / (high - low)
        between = 1 / ((1 - smooth) / factor + smooth)
        factors.append(1.0 if wavelength < old / high else factor if wavelength > old / low else between)
    return factors


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if key == "general.alignment":
        return writer.add_custom_alignment(value)
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    return getattr(writer, f"add_{kinds[type(value)]}")(key, value)

"""A GGUF file in the words of a Hugging Face folder: its settings as config.json has them, its tensors by their names.

llama.cpp has its own names for both. In Llama models, its RoPE turns pairs of neighbouring numbers, and `transformers`
turns number i with number i + D / 2. So its converter reorders the rows of q and k, and we put them back.
Sources: `gguf/constants.py` and `permute` in `conversion/llama.py` of https://github.com/ggml-org/llama.cpp
"""

import math
import re
from typing import Any

import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.config_keys import is_off, refusal
from minillm.model.gguf import FLOATS, GgufFile, TensorInfo, unpack

ARCHITECTURES = ("llama", "qwen2", "qwen3")
PERMUTED = ("llama",)  # for the other architectures llama.cpp turns number i with number i + D / 2 too
ROPE_FACTORS = "rope_freqs.weight"  # Llama 3.1: a divisor for the frequency of each pair, [D / 2]
_SCALING = "rope.scaling."
_HARMLESS = ("rope.scaling.finetuned", "tensor_data_layout")  # notes on the origin of the weights
_END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")  # of a sequence, a turn, a message to a tool
_SAMPLING = {  # key of the file: key of generation_config.json
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}
_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def config_keys(file: GgufFile) -> dict[str, Any]:
    """Return the keys that config.json would have for this model.

    Raises `CheckpointError` for an architecture that is not implemented, for a setting that is missing, and for one
    that is unknown and may change the model.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        hint = f"implemented: {', '.join(ARCHITECTURES)}; use a model of one of them"
        raise refusal(str(file.path), "general.architecture", architecture, hint)
    settings = _Settings(file, architecture)
    hidden, heads = settings.number("embedding_length"), settings.number("attention.head_count")
    raw: dict[str, Any] = {
        "model_type": architecture,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": settings.number("attention.head_count_kv", heads),
        "head_dim": settings.number("attention.key_length", hidden // heads),
        "num_hidden_layers": settings.number("block_count"),
        "intermediate_size": settings.number("feed_forward_length"),
        "max_position_embeddings": settings.number("context_length"),
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": settings.number("rope.freq_base", 10_000.0),
        "vocab_size": settings.number("vocab_size", _vocab_size(file)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": _dtype(file),
    }
    raw |= _rope_scaling(settings)
    if architecture == "llama" and settings.left.get("attention.sliding_window"):
        # Mistral is Llama with a window, and has no architecture of its own in these files.
        raw |= {"model_type": "mistral", "sliding_window": settings.number("attention.sliding_window")}
    for key, tensor in (("attention_bias", "attn_q"), ("mlp_bias", "ffn_up")):
        if f"blk.0.{tensor}.bias" in file.tensors and architecture != "qwen2":  # which always has one
            raw[key] = True
    settings.must_be("rope.dimension_count", raw["head_dim"])
    settings.must_be("attention.value_length", raw["head_dim"])
    settings.must_be("attention.causal", True)
    settings.refuse_others()
    return raw | _token_ids(file.metadata)


def generation_keys(file: GgufFile) -> dict[str, Any]:
    """Return the keys that generation_config.json would have: how its authors recommend to sample."""
    return {name: file.metadata[key] for key, name in _SAMPLING.items() if key in file.metadata}


def rope_factors(file: GgufFile, head_dim: int) -> tuple[float, ...]:
    """Return what the frequency of each pair is divided by, or () if the file has no such table."""
    info = file.tensors.get(ROPE_FACTORS)
    if info is None:
        return ()
    if info.shape != (head_dim // 2,) or info.kind is not Type.F32:
        raise CheckpointError(
            f"{file.path}: tensor {ROPE_FACTORS!r} is {info.kind.name} {list(info.shape)} and must be F32 "
            f"[{head_dim // 2}]. Download the file again"
        )
    factors = unpack(file.rows(ROPE_FACTORS), info.kind)[0].tolist()
    if not all(0 < factor < math.inf for factor in factors):
        raise CheckpointError(
            f"{file.path}: tensor {ROPE_FACTORS!r} must hold numbers above 0. Download the file again"
        )
    return tuple(factors)


class GgufTensors:
    """The tensors of a GGUF file under the names of a Hugging Face folder, one read at a time.

    A matrix of quantised blocks has two names: `X.weight` is it in floats, and `X.q4_0` (its type) is it as stored,
    bytes [rows, bytes per row]. `unread` are the tensors that `get` has returned under neither.
    """

    settings = "metadata"

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self.file, self.path, self.config = file, file.path, config
        self._permuted = file.metadata["general.architecture"] in PERMUTED
        self._stored = {_translated(name): name for name in file.tensors if name != ROPE_FACTORS}
        self._blocks = {
            _name_of_blocks(name, file.tensors[stored]): name for name, stored in self._stored.items()
        }
        self.names = self._stored.keys() | self._blocks.keys()
        self.unread = set(self._stored)

    def get(self, name: str) -> Tensor:
        """Return a tensor on the CPU: plain numbers in the stored type, quantised ones as float32 or as bytes."""
        in_floats = self._blocks.get(name, name)
        if in_floats not in self._stored:
            raise CheckpointError(f"{self.path} has no tensor for {name!r}, which this kind of model needs")
        stored = self._stored[in_floats]
        info, rows = self.file.tensors[stored], self.file.rows(stored)
        self.unread.discard(in_floats)
        tensor = unpack(rows, info.kind).view(info.shape) if name == in_floats else torch.from_numpy(rows)
        return self._in_order(tensor, stored)

    def _in_order(self, tensor: Tensor, stored: str) -> Tensor:
        """Return q or k, [heads * D, ...], with the halves of each head one after the other again."""
        part = re.fullmatch(r"blk\.\d+\.attn_([qk])\.\w+", stored)
        if part is None or not self._permuted:
            return tensor
        heads = self.config.num_attention_heads if part[1] == "q" else self.config.num_key_value_heads
        if len(tensor) % (2 * heads):
            return tensor  # the loader refuses it, with the shape that it must have
        pairs = tensor.reshape(heads, -1, 2, tensor[0].numel())  # [heads, D / 2, 2, in]
        return pairs.transpose(1, 2).reshape(tensor.shape)


class _Settings:
    """The keys of the file that begin with its architecture, each taken once; `left` are the others."""

    def __init__(self, file: GgufFile, architecture: str) -> None:
        self.path, self.prefix = file.path, architecture + "."
        self.left = {
            key.removeprefix(self.prefix): value
            for key, value in file.metadata.items()
            if key.startswith(self.prefix)
        }

    def number(self, key: str, default: float | None = None) -> Any:
        """Return a number above 0. Raise `CheckpointError` if it is none, or is missing and has no default."""
        value = self.left.pop(key, default)
        if value is None:
            raise CheckpointError(f"{self.path} has no {self.prefix}{key}, which this kind of model needs")
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise CheckpointError(f"{self.path}: {self.prefix}{key}={value!r:.80} must be a number above 0")
        return value

    def must_be(self, key: str, only: Any) -> None:
        """Take a key that is implemented for one value alone."""
        value = self.left.pop(key, only)
        if value != only:
            raise refusal(str(self.path), self.prefix + key, value, f"implemented: {only!r}")

    def refuse_others(self) -> None:
        """Raise `CheckpointError` for a key that was not taken and is neither harmless nor off."""
        for key, value in self.left.items():
            if key not in _HARMLESS and not is_off(key, value):
                raise refusal(
                    str(self.path), self.prefix + key, value, "the key is unknown and may change the model"
                )


def _rope_scaling(settings: _Settings) -> dict[str, Any]:
    """Return `rope_scaling` as config.json has it, or nothing. llama.cpp takes a factor without a type as "linear"."""
    left, key = settings.left, _SCALING + "factor"
    factor = settings.number(key) if left.get(key) else 1.0
    kind = left.pop(_SCALING + "type", "none" if factor == 1 else "linear")
    if kind == "none":
        settings.left = {key: value for key, value in left.items() if not key.startswith(_SCALING)}
        return {}
    if kind not in ("linear", "yarn"):
        raise refusal(
            str(settings.path), settings.prefix + _SCALING + "type", kind, "implemented: none, linear, yarn"
        )
    scaling = {"rope_type": kind, "factor": float(factor)}
    if kind == "yarn":
        settings.must_be(_SCALING + "yarn_ext_factor", 1.0)
        scaling |= {
            "original_max_position_embeddings": settings.number(_SCALING + "original_context_length"),
            "beta_fast": settings.number(_SCALING + "yarn_beta_fast", 32.0),
            "beta_slow": settings.number(_SCALING + "yarn_beta_slow", 1.0),
        }
        for key in ("attn_factor", "yarn_attn_factor"):  # an old name and a new one
            settings.must_be(_SCALING + key, 1.0)
    return {"rope_scaling": scaling}


def _token_ids(metadata: dict[str, Any]) -> dict[str, Any]:
    ends = [metadata.get("tokenizer.ggml." + name) for name in _END_TOKENS]
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": [token_id for token_id in ends if token_id is not None],
    }


def _vocab_size(file: GgufFile) -> int | None:
    info = file.tensors.get("token_embd.weight")
    return None if info is None else info.num_rows


def _dtype(file: GgufFile) -> str:
    """Return the type of the weights if they are plain numbers, else bfloat16, which keeps the range of float32."""
    kinds = {info.kind for info in file.tensors.values()} - {Type.F32}
    return {frozenset(): "float32", frozenset({Type.F16}): "float16"}.get(frozenset(kinds), "bfloat16")


def _name_of_blocks(name: str, info: TensorInfo) -> str:
    """Return the name under which a tensor is read as it is stored; plain numbers keep their own."""
    return name if info.kind in FLOATS else f"{name.rpartition('.')[0]}.{info.kind.name.lower()}"


def _translated(name: str) -> str:
    """Return the name of a tensor in a Hugging Face folder. One that no model here has keeps its own."""
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block and block[2] in _BLOCK_TENSORS:
        return f"model.layers.{block[1]}.{_BLOCK_TENSORS[block[2]]}.{block[3]}"
    module, _, suffix = name.rpartition(".")
    return f"{_TENSORS.get(module, module)}.{suffix}"

"""Model families as tables: which config keys and tensor names of a Hugging Face folder mean what.

A family is a row here, not a class: all of them are one decoder (transformer.py) with switches. Keys that no table
names are refused, unless they are harmless or off (config_keys.py).
"""

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.config_keys import LARGEST, Key, Raw, read_json, read_keys, refusal, refuse_others
from minillm.model.rope import read_rope
from minillm.sampling import SamplingParams


@dataclass(frozen=True)
class Names:
    """Name the tensors of a checkpoint; `{i}` is the layer. Parts that are fused in memory are listed in order, so
    `qkv` may be three tensors or one. `None` means that the family has no such tensor."""

    embed: str
    final_norm: str
    lm_head: str
    attention_norm: str
    qkv: tuple[str, ...]
    o: str
    mlp_norm: str
    gate_up: tuple[str, ...]  # (gate, up) of a gated MLP, or the one matrix before the activation
    down: str
    position_embed: str | None = None
    q_norm: str | None = None
    k_norm: str | None = None
    transposed: bool = False  # matrices stored [in, out], as GPT-2's Conv1D does

    def projection(self, role: str, layer: int) -> str:
        """Return the name of a layer's projection `role`: "qkv", "o", "gate_up" or "down".

        One matrix keeps its own name, "model.layers.3.self_attn.o_proj". A projection fused from several has the name
        of the module that holds them, and its role: "model.layers.3.self_attn.qkv".
        """
        parts = getattr(self, role)
        if isinstance(parts, tuple):
            parts = parts[0] if len(parts) == 1 else f"{parts[0].rpartition('.')[0]}.{role}"
        name: str = parts
        return name.format(i=layer)


LLAMA_NAMES = Names(
    embed="model.embed_tokens",
    final_norm="model.norm",
    lm_head="lm_head",
    attention_norm="model.layers.{i}.input_layernorm",
    qkv=tuple(f"model.layers.{{i}}.self_attn.{x}_proj" for x in "qkv"),
    o="model.layers.{i}.self_attn.o_proj",
    mlp_norm="model.layers.{i}.post_attention_layernorm",
    gate_up=("model.layers.{i}.mlp.gate_proj", "model.layers.{i}.mlp.up_proj"),
    down="model.layers.{i}.mlp.down_proj",
    q_norm="model.layers.{i}.self_attn.q_norm",
    k_norm="model.layers.{i}.self_attn.k_norm",
)
GPT2_NAMES = Names(
    embed="transformer.wte",
    position_embed="transformer.wpe",
    final_norm="transformer.ln_f",
    lm_head="lm_head",
    attention_norm="transformer.h.{i}.ln_1",
    qkv=("transformer.h.{i}.attn.c_attn",),
    o="transformer.h.{i}.attn.c_proj",
    mlp_norm="transformer.h.{i}.ln_2",
    gate_up=("transformer.h.{i}.mlp.c_fc",),
    down="transformer.h.{i}.mlp.c_proj",
    transposed=True,
)

# The defaults are those of each family's config class in `transformers`.
_DTYPE = Key(str, None, None, {d: d for d in ("float32", "bfloat16", "float16", "float64")})
_MAX_LAYERS = 10_000  # far above any model: a damaged number is refused before memory is asked for
_WINDOW = Key(int, 4096, None)
_COMMON = {
    "vocab_size": Key(),
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,  # its name in transformers 4
    "is_causal": Key(bool, True, True, choices={True: True}),
}
_LLAMA_LIKE = _COMMON | {
    "hidden_size": Key(),
    "intermediate_size": Key(),
    "num_hidden_layers": Key(high=_MAX_LAYERS),
    "num_attention_heads": Key(),
    "num_key_value_heads": Key(int, None, None),  # None: one for each query head
    "head_dim": Key(int, None, None),  # None: hidden_size / num_attention_heads
    "max_position_embeddings": Key(high=2**31 - 1),
    "layer_types": Key(list, None, None),
    "hidden_act": Key(str, "silu", choices={"silu": "silu"}, fields=("activation",)),
    "rms_norm_eps": Key(float, 1e-6, fields=("norm_eps",)),
    "tie_word_embeddings": Key(bool, False),
}
_BIAS = {"attention_bias": Key(bool, False, fields=("qkv_bias", "o_bias"))}
_QWEN = _LLAMA_LIKE | {
    "num_key_value_heads": Key(int, 32, None),
    "sliding_window": _WINDOW,
    "use_sliding_window": Key(bool, False),
    "max_window_layers": Key(int, 28, above=-1),
}
_GPT2 = _COMMON | {
    "n_embd": Key(fields=("hidden_size",)),
    "n_inner": Key(int, None, None, fields=("intermediate_size",)),  # None: 4 * n_embd
    "n_layer": Key(high=_MAX_LAYERS, fields=("num_hidden_layers",)),
    "n_head": Key(fields=("num_attention_heads",)),
    "n_positions": Key(fields=("max_position_embeddings",)),
    "activation_function": Key(
        str,
        "gelu_tanh",
        choices={"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"},
        fields=("activation",),
    ),
    "layer_norm_epsilon": Key(float, 1e-5, fields=("norm_eps",)),
    "scale_attn_weights": Key(bool, True, choices={True: True}),
    "tie_word_embeddings": Key(bool, True),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describe one model_type: the keys of its config.json, its tensors' names, and fixed fields of `ModelConfig`."""

    keys: Mapping[str, Key]
    names: Names = LLAMA_NAMES
    always: Mapping[str, Any] = field(default_factory=dict)
    rope: bool = True
    bos: int | None = None  # ids if config.json has none
    eos: int | None = None


FAMILIES = {
    # Llama 2 and 3, SmolLM 1 and 2, and many others
    "llama": Family(keys=_LLAMA_LIKE | _BIAS | {"mlp_bias": Key(bool, False)}, bos=1, eos=2),
    "mistral": Family(
        keys=_LLAMA_LIKE | {"num_key_value_heads": Key(int, 8, None), "sliding_window": _WINDOW},
        bos=1,
        eos=2,
    ),
    "qwen2": Family(keys=_QWEN, always={"qkv_bias": True}),
    "qwen3": Family(keys=_QWEN | _BIAS | {"head_dim": Key(int, 128, None)}, always={"qk_norm": True}),
    "gpt2": Family(
        keys=_GPT2,
        names=GPT2_NAMES,
        always={
            "norm": "layer_norm",
            "gated_mlp": False,
            "qkv_bias": True,
            "o_bias": True,
            "mlp_bias": True,
        },
        rope=False,
        bos=50256,
        eos=50256,
    ),
}
QUANTIZATION = "quantization_config"  # read by the schemes of `minillm.quantization`
_ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta")
_UNKNOWN = (
    "the key is unknown for this family and may change the model: if you are sure that it does not, delete it from "
    "the file"
)
_FLOATS_ONLY = "load the unquantised checkpoint"
_HEAD = (
    'this is an EAGLE-3 head and not a model: load its model with speculative_config={"method": "eagle3", '
    '"model": this folder}'
)
_HINTS = {
    "draft_vocab_size": _HEAD,
    "eagle_config": _HEAD,
    "quantization": _FLOATS_ONLY,
    "compression_config": _FLOATS_ONLY,
    "auto_map": "the model brings its own code: it may not be what it is called",
}


def config_from_dict(raw: Raw, source: str = "config.json") -> ModelConfig:
    """Return the `ModelConfig` of a config.json. Raises `CheckpointError` naming the key that is not implemented."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise refusal(source, "model_type", kind, f"implemented: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    known = {*family.keys, *(_ROPE_KEYS if family.rope else ()), QUANTIZATION}
    refuse_others(raw, known, source, _UNKNOWN, _HINTS)
    values = read_keys(raw, family.keys, source)
    _derive_sizes(values, source)
    values["sliding_windows"] = _sliding_windows(values, source)
    values["dtype"] = values["dtype"] or values["torch_dtype"] or "float32"
    bos, eos = (
        _token_ids(raw.get(key, default), key, source, values["vocab_size"])
        for key, default in (("bos_token_id", family.bos), ("eos_token_id", family.eos))
    )
    fields = {name: value for name, value in values.items() if name in ModelConfig.__dataclass_fields__}
    try:
        return ModelConfig(
            family=kind,
            rope=read_rope(raw, source, values["max_position_embeddings"]) if family.rope else None,
            bos_token_id=bos[0] if bos else None,
            eos_token_ids=eos,
            **fields,
            **family.always,
        )
    except ValueError as error:
        raise (
            error if isinstance(error, CheckpointError) else CheckpointError(f"{source}: {error}")
        ) from error


def _derive_sizes(values: dict[str, Any], source: str) -> None:
    """Fill in the sizes that config.json leaves to be computed from others."""
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    if values.get("head_dim") is None:
        if hidden % heads:
            raise CheckpointError(
                f"{source}: hidden size {hidden} is not a multiple of {heads} attention heads"
            )
        values["head_dim"] = hidden // heads
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = heads
    if values["intermediate_size"] is None:
        values["intermediate_size"] = 4 * hidden


def _sliding_windows(values: Mapping[str, Any], source: str) -> tuple[int | None, ...]:
    """Return one window for each layer: by `layer_types` if the file has it, else from `max_window_layers` on."""
    num_layers, layer_types = values["num_hidden_layers"], values.get("layer_types")
    window = values.get("sliding_window") if values.get("use_sliding_window", True) else None
    first = values.get("max_window_layers", 0)
    uses = [window is not None and i >= first for i in range(num_layers)]
    if layer_types is not None:
        if strange := [t for t in layer_types if t not in ("full_attention", "sliding_attention")]:
            raise refusal(source, "layer_types", strange[0], "implemented: full_attention, sliding_attention")
        if len(layer_types) != num_layers:
            raise CheckpointError(
                f"{source}: layer_types has {len(layer_types)} entries for num_hidden_layers={num_layers}"
            )
        listed = [t == "sliding_attention" for t in layer_types]
        if any(listed) and window is None:
            raise CheckpointError(
                f"{source}: layer_types has sliding_attention, but no sliding_window is in use"
            )
        if "max_window_layers" not in values and listed != uses:
            raise CheckpointError(
                f"{source}: sliding_window={window} is for every layer of this family, but layer_types says otherwise: "
                "remove the one that is wrong"
            )
        uses = listed
    return tuple(window if use else None for use in uses) if any(uses) else ()


@dataclass(frozen=True)
class GenerationConfig:
    """Hold what a model's authors recommend in generation_config.json.

    `eos_token_ids` may hold ids outside the vocabulary. `sampling` has the fields of `SamplingParams` that the file
    gives, with their values. vLLM takes the same fields as defaults for requests without sampling parameters.
    """

    eos_token_ids: tuple[int, ...] = ()
    sampling: Mapping[str, float | int] = field(default_factory=dict)


_SAMPLING = {
    **{name: Key(float, None, None, above=-1) for name in ("temperature", "top_p", "min_p")},
    "repetition_penalty": Key(float, None, None),
    "top_k": Key(int, None, None, above=-2),
    "max_new_tokens": Key(int, None, None, fields=("max_tokens",)),
}


def read_generation_config(folder: Path) -> GenerationConfig:
    """Return what generation_config.json says, or nothing if the folder has none.

    Raises `CheckpointError` for a value that `SamplingParams` refuses, or an end token that is not a number.
    """
    path = folder / "generation_config.json"
    return generation_from_dict(read_json(path), str(path)) if path.exists() else GenerationConfig()


def generation_from_dict(raw: Raw, source: str = "generation_config.json") -> GenerationConfig:
    """Return the `GenerationConfig` of a generation_config.json. Raises as `read_generation_config`."""
    values = read_keys(raw, _SAMPLING, source)
    sampling = {name: value for name, value in values.items() if value is not None}
    try:
        SamplingParams(**sampling)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{source}: {error}") from error
    return GenerationConfig(_token_ids(raw.get("eos_token_id"), "eos_token_id", source), sampling)


def read_config(folder: Path) -> ModelConfig:
    """Return the `ModelConfig` of a model folder. The ids that end a sequence are those of generation_config.json,
    or of config.json if the former names none in the vocabulary."""
    path = folder / "config.json"
    config = config_from_dict(read_json(path), source=str(path))
    recommended = read_generation_config(folder).eos_token_ids
    eos = tuple(i for i in recommended if i < config.vocab_size)
    return replace(config, eos_token_ids=eos or config.eos_token_ids)


def read_quantization_config(folder: Path) -> Mapping[str, Any] | None:
    """Return how config.json says that the weights are quantised; None if they are not.

    Raises `CheckpointError` if it is not a table.
    """
    path = folder / "config.json"
    stored = read_json(path).get(QUANTIZATION)
    if stored is not None and not isinstance(stored, dict):
        raise CheckpointError(f"{path}: {QUANTIZATION}={reprlib.repr(stored)} is not a table")
    return stored or None


def _token_ids(value: Any, key: str, source: str, vocab_size: int = LARGEST) -> tuple[int, ...]:
    """Return one id, a list of them, or none for null, each once. Ids that cannot be sampled are left out."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(i) is not int for i in ids):
        raise CheckpointError(
            f"{source}: {key}={reprlib.repr(value)} is neither a token id nor a list of them"
        )
    return tuple(i for i in dict.fromkeys(ids) if 0 <= i < vocab_size)

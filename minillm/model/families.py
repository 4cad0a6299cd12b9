"""Model families as tables: which config keys and tensor names of a Hugging Face folder mean what.

A family is a row here, not a class: all of them are one decoder (transformer.py) with switches. The rule for
config.json is that every key is either understood, or known to be harmless, or at a value that changes
nothing. Anything else raises, naming the key: a model is never run as a silently different one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minillm.config import ModelConfig, RopeConfig
from minillm.errors import CheckpointError

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Names:
    """Where a checkpoint keeps each tensor; `{i}` is the layer. Parts that are fused in memory are listed in
    order: `qkv` may be three tensors or one. `None`: the family has no such tensor."""

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

# Keys that say how a model was trained, saved or sampled from, and change no logit at inference.
HARMLESS = frozenset(
    """_attn_implementation _attn_implementation_autoset _name_or_path architectures attention_dropout attn_pdrop
    chat_template decoder_start_token_id do_sample early_stopping embd_pdrop embedding_dropout finetuning_task
    gradient_checkpointing id2label initializer_range is_llama_config keys_to_ignore_at_inference label2id
    length_penalty max_length max_window_layers min_length model_type n_ctx no_repeat_ngram_size num_beams
    output_attentions output_hidden_states pad_token_id prefix problem_type reorder_and_upcast_attn
    repetition_penalty resid_pdrop return_dict sep_token_id summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj task_specific_params temperature tokenizer_class top_k
    top_p transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version use_cache""".split()
)
# `pretraining_tp` > 1 sums the same products in slices: the same model up to rounding.
HARMLESS |= {"pretraining_tp", "chunk_size_feed_forward", "is_decoder"}

DTYPES = ("float32", "bfloat16", "float16", "float64")
MAX_LAYERS = 10_000  # far above any model: a damaged number is refused before memory is asked for
_REFUSED: Any = object()


class _Reader:
    """Reads keys of one config.json and remembers which, so that what is left over can be refused.

    A key that is absent and one that is null are different things, as they are to `transformers`.
    """

    def __init__(self, raw: Raw, source: str) -> None:
        self.raw, self.source, self.seen = raw, source, set(HARMLESS)

    def need(self, key: str, kind: type[Any] = int) -> Any:
        """The value of a key that must be there."""
        if self.raw.get(key) is None:
            self.seen.add(key)
            raise CheckpointError(f"{self.source} has no {key!r}, which this kind of model needs")
        return self.get(key, None, kind)

    def get(self, key: str, default: Any, kind: type[Any] = int, null: Any = _REFUSED) -> Any:
        """A value of type `kind`, a number positive and finite; `default` where absent, `null` where null."""
        self.seen.add(key)
        if key not in self.raw:
            return default
        value = self.raw[key]
        if value is None and null is not _REFUSED:
            return null
        if kind is float and type(value) is int and value < 2**63:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(f"{self.source}: {key}={value!r} is not of type {kind.__name__}")
        if kind in (int, float) and not 0 < value < 2**63:
            raise CheckpointError(f"{self.source}: {key}={value!r} must be positive and finite")
        return value

    def only(self, key: str, *allowed: Any) -> Any:
        """The value of a key for which only some values are implemented; the first is the default."""
        self.seen.add(key)
        value = self.raw.get(key, allowed[0])
        if value not in allowed:
            raise self.refusal(key, value, "implemented: " + ", ".join(map(repr, allowed)))
        return value

    def refusal(self, key: str, value: Any, hint: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: {key}={value!r} is not implemented ({hint})")

    def refuse_the_rest(self, why: str) -> None:
        """A key that nothing has read must be off: null, false, or empty."""
        for key, value in self.raw.items():
            if (
                key not in self.seen
                and value is not None
                and value is not False
                and value not in ({}, [], "")
            ):
                raise self.refusal(key, value, why)


def _rope(read: _Reader) -> RopeConfig:
    """Both spellings: `rope_theta` + `rope_scaling` (transformers 4) and `rope_parameters` (transformers 5)."""
    new, old = (read.get(key, {}, dict, null={}) for key in ("rope_parameters", "rope_scaling"))
    if new and old and new != old:
        raise CheckpointError(f"{read.source}: rope_parameters={new!r} and rope_scaling={old!r} disagree")
    outer_theta = read.get("rope_theta", 10_000.0, float, null=None)
    nested = _Reader(new or old, f"{read.source}: rope_parameters")
    kind: Any = nested.raw.get("rope_type", nested.raw.get("type", "default"))
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise read.refusal("rope_type", kind, "implemented: default, linear, llama3, yarn")
    nested.seen |= {"rope_type", "type"}
    nested.only("partial_rotary_factor", 1.0, None)
    read.only("partial_rotary_factor", 1.0, None)
    theta = nested.get("rope_theta", outer_theta, float)
    if theta is None or theta <= 1:
        raise CheckpointError(f"{read.source}: rope_theta={theta} must be above 1")
    rope = RopeConfig(theta=theta, type=kind)
    if kind != "default":
        rope = replace(rope, factor=nested.need("factor", float))
    if kind == "llama3":
        rope = replace(
            rope,
            original_max_position_embeddings=nested.need("original_max_position_embeddings"),
            low_freq_factor=nested.need("low_freq_factor", float),
            high_freq_factor=nested.need("high_freq_factor", float),
        )
        if rope.low_freq_factor >= rope.high_freq_factor:
            raise CheckpointError(
                f"{nested.source}: low_freq_factor={rope.low_freq_factor} must be below "
                f"high_freq_factor={rope.high_freq_factor}"
            )
    if kind == "yarn":
        length = read.need("max_position_embeddings")
        rope = replace(
            rope,
            original_max_position_embeddings=nested.get(
                "original_max_position_embeddings", length, null=length
            ),
            beta_fast=nested.get("beta_fast", 32.0, float, null=32.0),
            beta_slow=nested.get("beta_slow", 1.0, float, null=1.0),
            attention_factor=nested.get("attention_factor", None, float, null=None),
            truncate=nested.get("truncate", True, bool),
        )
    nested.refuse_the_rest(f"not part of rope_type {kind!r}")
    return rope


def _sliding_windows(
    read: _Reader, num_layers: int, window: int | None, *, first_layer: int = 0
) -> tuple[int | None, ...]:
    """One window a layer, from `layer_types` where the checkpoint lists them, else for all from `first_layer` on."""
    layer_types = read.get("layer_types", None, list, null=None)
    if layer_types is None:
        uses = [window is not None and i >= first_layer for i in range(num_layers)]
    else:
        if strange := [t for t in layer_types if t not in ("full_attention", "sliding_attention")]:
            raise read.refusal("layer_types", strange[0], "implemented: full_attention, sliding_attention")
        if len(layer_types) != num_layers:
            raise CheckpointError(
                f"{read.source}: layer_types has {len(layer_types)} entries for num_hidden_layers={num_layers}"
            )
        uses = [t == "sliding_attention" for t in layer_types]
        if any(uses) and window is None:
            raise CheckpointError(
                f"{read.source}: layer_types has sliding_attention, but no sliding_window is in use"
            )
    return tuple(window if use else None for use in uses) if any(uses) else ()


def _head_dim(read: _Reader, hidden: int, heads: int) -> int:
    """Where config.json names no `head_dim`, the hidden size is split evenly among the heads."""
    if hidden % heads:
        raise CheckpointError(
            f"{read.source}: hidden size {hidden} is not a multiple of {heads} attention heads"
        )
    return hidden // heads


def _num_layers(read: _Reader, key: str) -> int:
    layers: int = read.need(key)
    if layers > MAX_LAYERS:
        raise CheckpointError(f"{read.source}: {key}={layers} is above {MAX_LAYERS}")
    return layers


def _llama_like(
    read: _Reader, default_kv_heads: int | None = None, default_head_dim: int | None = None
) -> ModelConfig:
    """The defaults are those of the family's config class in `transformers`, for keys that are not in the file."""
    hidden, heads = read.need("hidden_size"), read.need("num_attention_heads")
    read.only("hidden_act", "silu")
    return ModelConfig(
        family=read.raw["model_type"],
        vocab_size=read.need("vocab_size"),
        hidden_size=hidden,
        intermediate_size=read.need("intermediate_size"),
        num_hidden_layers=_num_layers(read, "num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=read.get("num_key_value_heads", default_kv_heads or heads, null=heads),
        head_dim=read.get("head_dim", default_head_dim, null=None) or _head_dim(read, hidden, heads),
        max_position_embeddings=read.need("max_position_embeddings"),
        rope=_rope(read),
        norm_eps=read.get("rms_norm_eps", 1e-6, float),
    )


def _llama(read: _Reader) -> ModelConfig:
    bias = read.get("attention_bias", False, bool)
    return replace(_llama_like(read), qkv_bias=bias, o_bias=bias, mlp_bias=read.get("mlp_bias", False, bool))


def _mistral(read: _Reader) -> ModelConfig:
    config = _llama_like(read, default_kv_heads=8)
    window = read.get("sliding_window", 4096, null=None)
    return replace(config, sliding_windows=_sliding_windows(read, config.num_hidden_layers, window))


def _qwen(read: _Reader, default_head_dim: int | None = None) -> ModelConfig:
    config = _llama_like(read, default_kv_heads=32, default_head_dim=default_head_dim)
    window = read.get("sliding_window", 4096, null=None)
    if not read.get("use_sliding_window", False, bool):
        window = None
    first_layer = read.raw.get("max_window_layers", 28)
    if type(first_layer) is not int or first_layer < 0:
        raise CheckpointError(f"{read.source}: max_window_layers={first_layer!r} is not a number of layers")
    windows = _sliding_windows(read, config.num_hidden_layers, window, first_layer=first_layer)
    return replace(config, sliding_windows=windows)


def _qwen2(read: _Reader) -> ModelConfig:
    return replace(_qwen(read), qkv_bias=True)


def _qwen3(read: _Reader) -> ModelConfig:
    bias = read.get("attention_bias", False, bool)
    return replace(_qwen(read, default_head_dim=128), qk_norm=True, qkv_bias=bias, o_bias=bias)


def _gpt2(read: _Reader) -> ModelConfig:
    hidden, heads = read.need("n_embd"), read.need("n_head")
    read.only("scale_attn_weights", True)
    read.only("add_cross_attention", False)
    read.only("scale_attn_by_inverse_layer_idx", False)
    act = read.only("activation_function", "gelu_new", "gelu_pytorch_tanh", "gelu")
    return ModelConfig(
        family="gpt2",
        vocab_size=read.need("vocab_size"),
        hidden_size=hidden,
        intermediate_size=read.get("n_inner", 4 * hidden, null=4 * hidden),
        num_hidden_layers=_num_layers(read, "n_layer"),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=_head_dim(read, hidden, heads),
        max_position_embeddings=read.need("n_positions"),
        rope=None,
        norm="layer_norm",
        norm_eps=read.get("layer_norm_epsilon", 1e-5, float),
        activation="gelu" if act == "gelu" else "gelu_tanh",
        gated_mlp=False,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
    )


@dataclass(frozen=True)
class Family:
    """How to read a model_type's config.json, its tensors' names, and what holds where config.json is silent."""

    parse: Callable[[_Reader], ModelConfig]
    names: Names
    tied: bool = False
    bos: int | None = None
    eos: int | None = None


FAMILIES = {
    "llama": Family(_llama, LLAMA_NAMES, bos=1, eos=2),  # Llama 2 and 3, SmolLM 1 and 2, and many others
    "mistral": Family(_mistral, LLAMA_NAMES, bos=1, eos=2),
    "qwen2": Family(_qwen2, LLAMA_NAMES),
    "qwen3": Family(_qwen3, LLAMA_NAMES),
    "gpt2": Family(_gpt2, GPT2_NAMES, tied=True, bos=50256, eos=50256),
}


def config_from_dict(raw: Raw, source: str = "config.json") -> ModelConfig:
    """A `ModelConfig` from the content of a config.json; raises `CheckpointError` naming what is not implemented."""
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise CheckpointError(
            f"{source}: model_type={kind!r} is not implemented (implemented: {', '.join(FAMILIES)})"
        )
    read, family = _Reader(raw, source), FAMILIES[kind]
    if quantization := read.get("quantization_config", None, dict, null=None):
        raise read.refusal("quantization_config", quantization, "load the unquantised checkpoint")
    if raw.get("auto_map"):
        raise read.refusal(
            "auto_map", raw["auto_map"], "the model brings its own code: it may not be what it is called"
        )
    read.only("is_causal", True, None)
    dtype = (
        read.get("dtype", None, str, null=None) or read.get("torch_dtype", None, str, null=None) or "float32"
    )
    read.seen |= {"torch_dtype", "bos_token_id", "eos_token_id"}
    if dtype not in DTYPES:
        raise read.refusal("dtype", dtype, f"implemented: {', '.join(DTYPES)}")
    try:
        config = family.parse(read)
    except ValueError as error:
        raise (
            error if isinstance(error, CheckpointError) else CheckpointError(f"{source}: {error}")
        ) from error
    bos = _token_ids(raw.get("bos_token_id", family.bos), "bos_token_id", source, config.vocab_size)
    config = replace(
        config,
        tie_word_embeddings=read.get("tie_word_embeddings", family.tied, bool),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=_token_ids(
            raw.get("eos_token_id", family.eos), "eos_token_id", source, config.vocab_size
        ),
        dtype=dtype,
    )
    read.refuse_the_rest("the key is unknown for this family and may change the model")
    return config


def read_config(folder: Path) -> ModelConfig:
    """The `ModelConfig` of a model folder, with the end-of-sequence ids of its generation_config.json, if any."""
    path = folder / "config.json"
    config = config_from_dict(_read_json(path), source=str(path))
    generation = folder / "generation_config.json"
    if generation.exists():
        value = _read_json(generation).get("eos_token_id")
        ids = _token_ids(value, "eos_token_id", str(generation), config.vocab_size)
        config = replace(config, eos_token_ids=ids or config.eos_token_ids)
    return config


def _token_ids(value: Any, key: str, source: str, vocab_size: int) -> tuple[int, ...]:
    """One id, a list of them, or null. An id outside the vocabulary can never be sampled, and is left out."""
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(i) is not int for i in ids):
        raise CheckpointError(f"{source}: {key}={value!r} is neither a token id nor a list of them")
    return tuple(i for i in ids if 0 <= i < vocab_size)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: a model folder needs one") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object")
    return content

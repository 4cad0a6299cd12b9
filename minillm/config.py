"""Configuration as plain frozen data: `ModelConfig` describes a model, and `EngineConfig` how to run it.

Nothing here reads a file or touches a tensor. `model/families.py` turns a checkpoint's config.json into a
`ModelConfig`. Code that counts bytes and operations needs only this configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864) and how it is scaled to longer contexts.

    `type` "llama3" scales low frequencies as Llama 3.1 does. "yarn" is arXiv 2309.00071. "linear" divides every
    position by `factor`. "factors" divides the frequency of each pair by its own number, as GGUF files do for Llama
    3.1. The fields that a type does not use keep their defaults.
    """

    theta: float = 10_000.0
    type: Literal["default", "linear", "llama3", "yarn", "factors"] = "default"
    factor: float = 1.0
    factors: tuple[float, ...] = ()
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The numbers that describe a decoder-only transformer. Field names are those of Hugging Face's config.json.

    `rope=None` means learned position embeddings (GPT-2). `sliding_windows` has one entry per layer: the number of
    tokens that a query may see, itself included, or None for all of them. Raises `ValueError` for numbers that do not
    fit together.
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: RopeConfig | None
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    norm_eps: float = 1e-6
    activation: Literal["silu", "gelu_tanh", "gelu"] = "silu"
    gated_mlp: bool = True
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tie_word_embeddings: bool = False
    sliding_windows: tuple[int | None, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}: every KV head serves the same number of query heads"
            )
        if self.rope is not None and self.head_dim % 2:
            raise ValueError(
                f"head_dim={self.head_dim} is odd: RoPE rotates pairs, so it needs an even number"
            )
        if self.sliding_windows and len(self.sliding_windows) != self.num_hidden_layers:
            raise ValueError(
                f"sliding_windows has {len(self.sliding_windows)} entries for {self.num_hidden_layers} layers: give "
                "one entry per layer, or none"
            )

    @property
    def q_size(self) -> int:
        """Return the width of all query heads together: `num_attention_heads * head_dim`."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Return the width of all key (or value) heads together: `num_key_value_heads * head_dim`."""
        return self.num_key_value_heads * self.head_dim

    def sliding_window(self, layer: int) -> int | None:
        """Return the number of tokens that a query of this layer may see, itself included; None for no limit."""
        return self.sliding_windows[layer] if self.sliding_windows else None

    @property
    def num_parameters(self) -> int:
        """Return the number of parameters in a checkpoint of this model; tied embeddings count once."""
        h, m = self.hidden_size, self.intermediate_size
        attention = h * (self.q_size + 2 * self.kv_size) + self.q_size * h
        attention += self.qkv_bias * (self.q_size + 2 * self.kv_size) + self.o_bias * h
        attention += self.qk_norm * 2 * self.head_dim
        up = 2 if self.gated_mlp else 1
        mlp = (up + 1) * h * m + self.mlp_bias * (up * m + h)
        norm = h * (2 if self.norm == "layer_norm" else 1)
        embedding = self.vocab_size * h * (1 if self.tie_word_embeddings else 2)
        positions = 0 if self.rope is not None else self.max_position_embeddings * h
        return self.num_hidden_layers * (attention + mlp + 2 * norm) + norm + embedding + positions

    def kv_bytes_per_token(self, bytes_per_element: int = 2, bytes_per_scale: int = 0) -> int:
        """Return the bytes that one token occupies in the KV cache, over all layers.

        `bytes_per_scale` is the size of the scale that each token and KV head has in a quantised cache.
        """
        per_head = self.head_dim * bytes_per_element + bytes_per_scale
        return 2 * self.num_hidden_layers * self.num_key_value_heads * per_head


@dataclass(frozen=True, kw_only=True)
class SpeculativeConfig:
    """How to propose tokens, under vLLM's names, except `adaptive`. Raises `ValueError` for an invalid value.

    - "ngram" looks for the last `prompt_lookup_max` to `prompt_lookup_min` tokens earlier in the text.
    - "suffix" counts what followed in this text and in earlier outputs.
    - "draft_model" asks the smaller `model`. `draft_sample_method` "greedy" takes its most probable tokens, and
      "probabilistic" draws from its distribution.
    - "eagle3" runs the head `model` on the hidden states of the model.

    Each step verifies at most `num_speculative_tokens` drafts per request. With `adaptive` there are fewer, or none, if
    the measured costs say that they do not pay.
    """

    method: Literal["ngram", "suffix", "draft_model", "eagle3"]
    model: str | None = None
    num_speculative_tokens: int = 4
    adaptive: bool = False
    draft_sample_method: Literal["greedy", "probabilistic"] = "greedy"
    prompt_lookup_min: int = 2
    prompt_lookup_max: int = 4

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "SpeculativeConfig":
        """Return the configuration that the argument `speculative_config` describes."""
        if not isinstance(given, Mapping):
            raise TypeError(
                f"speculative_config is a {type(given).__name__}: give a dict such as "
                '{"method": "ngram", "num_speculative_tokens": 4}'
            )
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise ValueError(
                    f"speculative_config has no key {name!r}: it takes {', '.join(cls.__dataclass_fields__)}"
                )
        if "method" not in given:
            raise ValueError(f"speculative_config needs a method: {' or '.join(map(repr, METHODS))}")
        return cls(**given)

    def __post_init__(self) -> None:
        _check_choice("method", self.method, METHODS, "speculative_config: ")
        _check_choice(
            "draft_sample_method",
            self.draft_sample_method,
            ("greedy", "probabilistic"),
            "speculative_config: ",
        )
        for name in ("num_speculative_tokens", "prompt_lookup_min", "prompt_lookup_max"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ValueError(f"speculative_config: {name}={value!r}: give an integer of at least 1")
        if type(self.adaptive) is not bool:
            raise ValueError(f"speculative_config: adaptive={self.adaptive!r}: give True or False")
        if self.prompt_lookup_min > self.prompt_lookup_max:
            raise ValueError(
                f"speculative_config: prompt_lookup_min={self.prompt_lookup_min} exceeds "
                f"prompt_lookup_max={self.prompt_lookup_max}: lower the first, or raise the second"
            )
        if self.needs_model != (self.model is not None):
            raise ValueError(
                f"speculative_config: the method {self.method!r} needs a model: name a bundled one, a folder or an id"
                if self.needs_model
                else f"speculative_config: model={self.model!r}, but the method {self.method!r} uses none: drop it"
            )
        if self.draft_sample_method == "probabilistic" and self.method != "draft_model":
            raise ValueError(
                f"speculative_config: draft_sample_method='probabilistic' needs a draft with probabilities, and the "
                f"method {self.method!r} has none: use 'greedy', or the method 'draft_model'"
            )

    @property
    def needs_model(self) -> bool:
        return self.method in ("draft_model", "eagle3")


METHODS = ("ngram", "suffix", "draft_model", "eagle3")


def _check_choice(name: str, value: object, known: tuple[Any, ...], where: str = "") -> None:
    if value not in known:
        choices = " or ".join(map(repr, known))
        raise ValueError(f"{where}{name}={value!r} is not supported: use {choices}")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The engine arguments of `LLM`, which say how to run a model. Raises `ValueError` for an invalid value.

    The names are vLLM's, except `kv_cache`, `trace` and `max_num_waiting`. At most `max_num_waiting` requests may wait,
    and the engine refuses the next one; None means no limit. `num_gpu_blocks_override` counts blocks of a paged cache,
    rows of a contiguous cache and pages of a virtual one. `kv_cache_memory_bytes` is the memory for the KV cache, and
    of a draft model's cache, instead of a share of the free memory.
    """

    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 2048
    max_num_waiting: int | None = None
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    scheduling_policy: Literal["fcfs", "priority", "static"] = "fcfs"
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None
    kv_cache: Literal["paged", "contiguous", "virtual", "none"] = "paged"
    kv_cache_dtype: str = "auto"
    block_size: int = 16
    enable_prefix_caching: bool = True
    quantization: str | None = None
    speculative_config: Mapping[str, Any] | None = None
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    seed: int = 0
    trace: bool = False

    def __post_init__(self) -> None:
        for name, lowest in _LOWEST.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if type(value) is not int or value < lowest:
                raise ValueError(f"{name}={value!r}: give an integer of at least {lowest}")
        for name in ("enable_chunked_prefill", "enable_prefix_caching", "enforce_eager", "trace"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name}={getattr(self, name)!r}: give True or False")
        for name, known in _CHOICES.items():
            _check_choice(name, getattr(self, name), known)
        if self.seed >= 2**64:
            raise ValueError(f"seed={self.seed}: a seed has 64 bits, so give at most {2**64 - 1}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization={self.gpu_memory_utilization!r}: give a share above 0 and at most 1"
            )
        self._check_together()

    def _check_together(self) -> None:
        if self.kv_cache_memory_bytes is not None and self.num_gpu_blocks_override is not None:
            raise ValueError(
                f"kv_cache_memory_bytes={self.kv_cache_memory_bytes} and "
                f"num_gpu_blocks_override={self.num_gpu_blocks_override} both set the size of the KV cache: leave one "
                "of them out"
            )
        if self.kv_cache_memory_bytes is not None and self.kv_cache == "none":
            raise ValueError(
                f"kv_cache_memory_bytes={self.kv_cache_memory_bytes} is memory for a KV cache, and kv_cache='none' has "
                "none: leave one of them out"
            )
        if self.kv_cache_dtype != "auto" and self.kv_cache in ("virtual", "none"):
            raise ValueError(
                f"kv_cache_dtype={self.kv_cache_dtype!r} needs a cache with scales, and kv_cache={self.kv_cache!r} has "
                "none: use kv_cache='paged' or 'contiguous'"
            )
        self._check_speculation()
        if self.long_prefill_token_threshold and self.kv_cache == "none":
            raise ValueError(
                f"long_prefill_token_threshold={self.long_prefill_token_threshold} cuts prompts into chunks, but "
                "kv_cache='none' keeps nothing of the earlier chunks: leave one of them out"
            )
        if self.enable_chunked_prefill:
            return
        if self.long_prefill_token_threshold:
            raise ValueError(
                f"long_prefill_token_threshold={self.long_prefill_token_threshold} cuts prompts into chunks, but "
                "enable_chunked_prefill is False: leave one of them out"
            )
        longest = self.max_model_len or 0
        if self.max_num_batched_tokens < longest:
            raise ValueError(
                f"max_num_batched_tokens={self.max_num_batched_tokens} is below max_model_len={longest}, and "
                "enable_chunked_prefill is False. A long prompt could never be scheduled. Raise "
                "max_num_batched_tokens, or set enable_chunked_prefill=True"
            )

    @property
    def speculation(self) -> SpeculativeConfig | None:
        """Return `speculative_config`, checked, or None."""
        return None if self.speculative_config is None else SpeculativeConfig.of(self.speculative_config)

    def _check_speculation(self) -> None:
        speculation = self.speculation
        if speculation is None:
            return
        if self.kv_cache == "none":
            raise ValueError(
                "speculative_config needs a KV cache, and kv_cache='none' computes every token again: use "
                "kv_cache='paged', or no speculation"
            )
        if self.kv_cache == "virtual" and speculation.needs_model:
            raise ValueError(
                f"speculative_config: the method {speculation.method!r} keeps its own cache in the same blocks, and "
                "kv_cache='virtual' has none: use kv_cache='paged', or the method 'ngram'"
            )
        longest = self.max_model_len
        if longest is not None and speculation.num_speculative_tokens >= longest:
            raise ValueError(
                f"speculative_config: num_speculative_tokens={speculation.num_speculative_tokens} does not fit into "
                f"max_model_len={longest}: give at most {longest - 1}"
            )


_LOWEST = {
    "max_model_len": 2,
    "max_num_seqs": 1,
    "max_num_batched_tokens": 1,
    "max_num_waiting": 1,
    "long_prefill_token_threshold": 0,
    "kv_cache_memory_bytes": 1,
    "num_gpu_blocks_override": 1,
    "block_size": 1,
    "seed": 0,
}
_OPTIONAL = ("max_model_len", "max_num_waiting", "kv_cache_memory_bytes", "num_gpu_blocks_override")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "kv_cache": ("paged", "contiguous", "virtual", "none"),
    "scheduling_policy": ("fcfs", "priority", "static"),
    "kv_cache_dtype": ("auto", "int8", "fp8"),
    "quantization": (None, "int8", "w8a8", "fp8", "int4"),
    # vLLM's argument that so far supports only its default.
    "tensor_parallel_size": (1,),
}


def replace_arguments(config: EngineConfig, function: str, changes: Mapping[str, Any]) -> EngineConfig:
    """Return `config` with these changes. Raises `TypeError`, as `function` would, for an unknown argument."""
    known = EngineConfig.__dataclass_fields__
    for name in changes:
        if name not in known:
            raise TypeError(f"{function}() has no argument {name!r}: it takes {', '.join(known)}")
    return replace(config, **changes)

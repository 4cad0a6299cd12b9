"""config.json: means to us what it means to `transformers`, or is refused by name. Never a silently different model."""

import json
import math

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from minillm.config import ModelConfig, RopeConfig
from minillm.errors import CheckpointError
from minillm.model.families import (
    FAMILIES,
    GenerationConfig,
    config_from_dict,
    read_config,
    read_generation_config,
)
from minillm.model.rope import inverse_frequencies
from minillm.sampling import SamplingParams
from tests.model.zoo import LINEAR, LLAMA3, YARN, ZOO, sample

# The keys without which we refuse to guess.
LLAMA = {
    "model_type": "llama",
    "vocab_size": 60_000,
    "hidden_size": 4096,
    "intermediate_size": 96,
    "num_hidden_layers": 30,
    "num_attention_heads": 64,
    "max_position_embeddings": 4096,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 60_000,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
MINIMAL = {kind: LLAMA | {"model_type": kind} for kind in FAMILIES if kind != "gpt2"} | {"gpt2": GPT2}
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        *("factor", "beta_fast", "beta_slow", "attention_factor", "truncate"),
        "original_max_position_embeddings",
    ),
}
every_family = pytest.mark.parametrize("kind", MINIMAL)


def as_transformers_reads(raw: dict) -> ModelConfig:
    """The `ModelConfig` that says in our words what the config class of `transformers` makes of a config.json."""
    raw = json.loads(json.dumps(raw))
    kind = raw.pop("model_type")
    c = CONFIG_MAPPING[kind].from_dict(raw)
    activation = c.activation_function if kind == "gpt2" else c.hidden_act
    rope, windows = None, ()
    if kind != "gpt2":
        p = c.rope_parameters
        used = [k for k in ROPE_KEYS[p["rope_type"]] if p.get(k) is not None]
        rope = RopeConfig(theta=p["rope_theta"], type=p["rope_type"], **{k: p[k] for k in used})
    if kind == "mistral" and c.sliding_window is not None:
        windows = (c.sliding_window,) * c.num_hidden_layers
    if kind.startswith("qwen") and "sliding_attention" in c.layer_types:
        windows = tuple(c.sliding_window if t == "sliding_attention" else None for t in c.layer_types)
    bias = kind in ("qwen2", "gpt2") or getattr(c, "attention_bias", False)
    eos = c.eos_token_id if isinstance(c.eos_token_id, list) else [c.eos_token_id]
    return ModelConfig(
        family=kind,
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        intermediate_size=(c.n_inner or 4 * c.n_embd) if kind == "gpt2" else c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers,
        num_attention_heads=c.num_attention_heads,
        num_key_value_heads=getattr(c, "num_key_value_heads", c.num_attention_heads),
        head_dim=getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
        max_position_embeddings=c.max_position_embeddings,
        rope=rope,
        norm="layer_norm" if kind == "gpt2" else "rms_norm",
        norm_eps=c.layer_norm_epsilon if kind == "gpt2" else c.rms_norm_eps,
        activation={"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}.get(activation, activation),
        gated_mlp=kind != "gpt2",
        qkv_bias=bias,
        o_bias=bias and kind != "qwen2",
        mlp_bias=kind == "gpt2" or getattr(c, "mlp_bias", False),
        qk_norm=kind == "qwen3",
        tie_word_embeddings=c.tie_word_embeddings,
        sliding_windows=windows,
        bos_token_id=c.bos_token_id
        if c.bos_token_id is not None and 0 <= c.bos_token_id < c.vocab_size
        else None,
        eos_token_ids=tuple(i for i in eos if i is not None and 0 <= i < c.vocab_size),
        dtype=str(c.dtype or "float32").removeprefix("torch."),
    )


@every_family
def test_keys_that_are_absent_mean_what_they_mean_to_transformers(kind):
    assert config_from_dict(MINIMAL[kind]) == as_transformers_reads(MINIMAL[kind])


@pytest.mark.parametrize("name", ZOO)
def test_what_transformers_writes_is_read_as_it_was_meant(name):
    raw = json.loads((sample(name).folder / "config.json").read_text())
    assert config_from_dict(raw) == as_transformers_reads(raw)
    full = sample(name).reference.config.to_dict() | {"dtype": "float32"}
    assert config_from_dict(full) == as_transformers_reads(full)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("llama", "num_key_value_heads"), ("qwen2", "num_key_value_heads"), ("mistral", "sliding_window"),
     ("gpt2", "n_inner"), ("llama", "eos_token_id"), ("gpt2", "eos_token_id"), ("mistral", "bos_token_id")],
)  # fmt: skip
def test_null_is_another_thing_than_absent(kind, key):
    raw = MINIMAL[kind] | {key: None}
    assert config_from_dict(raw) == as_transformers_reads(raw)


@pytest.mark.parametrize("rope", [LLAMA3, YARN, LINEAR, {"rope_type": "default", "rope_theta": 5e5}])
@pytest.mark.parametrize("type_key", ["rope_type", "type"])
def test_both_spellings_of_rope_are_one(rope, type_key):
    new = config_from_dict(LLAMA | {"rope_parameters": rope})
    scaling = {k: v for k, v in rope.items() if k not in ("rope_type", "rope_theta")}
    old = LLAMA | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling | {type_key: rope["rope_type"]}}
    assert config_from_dict(old) == new == as_transformers_reads(old)
    assert new.rope.type == rope["rope_type"] and new.rope.theta == rope["rope_theta"]


def test_a_theta_among_the_rope_parameters_comes_before_one_next_to_them():
    raw = LLAMA | {"rope_theta": 1e6, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert config_from_dict(raw) == as_transformers_reads(raw)
    assert config_from_dict(raw).rope.theta == 5e5


def test_a_null_rope_scaling_is_none():
    config = config_from_dict(LLAMA | {"rope_theta": 5e5, "rope_scaling": None})
    assert config.rope == RopeConfig(theta=5e5)


def test_yarn_without_its_original_length_stretches_the_context_it_has():
    raw = LLAMA | {"rope_scaling": {"type": "yarn", "factor": 4.0}}
    assert config_from_dict(raw) == as_transformers_reads(raw)
    assert config_from_dict(raw).rope.original_max_position_embeddings == 4096


@pytest.mark.parametrize(
    ("key", "value"), [("dtype", "bfloat16"), ("torch_dtype", "bfloat16"), ("dtype", None)]
)
def test_dtype_under_its_new_and_its_old_name(key, value):
    assert config_from_dict(LLAMA | {key: value}).dtype == (value or "float32")
    assert config_from_dict(LLAMA | {"dtype": "float16", "torch_dtype": "bfloat16"}).dtype == "float16"


def test_qwens_lower_layers_see_everything():
    raw = MINIMAL["qwen2"] | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 28}
    assert config_from_dict(raw).sliding_windows == (None,) * 28 + (8, 8)
    assert config_from_dict(raw | {"use_sliding_window": False}).sliding_windows == ()
    types = ["sliding_attention"] + ["full_attention"] * 29
    assert config_from_dict(raw | {"layer_types": types}).sliding_windows == (8,) + (None,) * 29


def write(folder, config=LLAMA, generation=None):
    (folder / "config.json").write_text(json.dumps(config) if isinstance(config, dict) else config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))


@pytest.mark.parametrize(
    ("generation", "eos"),
    [(None, (7,)), ({}, (7,)), ({"eos_token_id": None}, (7,)), ({"eos_token_id": 9}, (9,)),
     ({"eos_token_id": [9, 8]}, (9, 8)), ({"eos_token_id": [9, 60_000]}, (9,))],
)  # fmt: skip
def test_generation_config_has_the_last_word_on_eos(tmp_path, generation, eos):
    write(tmp_path, LLAMA | {"eos_token_id": 7}, generation)
    assert read_config(tmp_path).eos_token_ids == eos


# Each message names the file, the key, the value, and what would do.
REFUSED = {
    "model_type": ("llama", {"model_type": "mixtral"}, "model_type='mixtral' is not implemented .*llama, mistral"),
    "no model_type": ("llama", {"model_type": None}, "model_type=None is not implemented"),
    "model_type of another type": ("llama", {"model_type": ["llama"]}, r"model_type=\['llama'\] is not implemented"),
    "unknown key": ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0 is not implemented"),
    "unknown switch": ("llama", {"use_qk_norm": True}, "use_qk_norm=True is not implemented .* may change the model"),
    "another family's key": ("qwen2", {"attention_multiplier": 0.5}, "attention_multiplier=0.5 is not implemented"),
    "another family's window": ("llama", {"sliding_window": 8}, "sliding_window=8 is not implemented"),
    "activation": ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu' is not implemented .implemented: 'silu'"),
    "gpt2 activation": ("gpt2", {"activation_function": "relu"}, "activation_function='relu' is not implemented"),
    "gpt2 scaling": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    "unscaled attention": ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False is not implemented"),
    "cross-attention": ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True is not implemented"),
    "attention both ways": ("llama", {"is_causal": False}, "is_causal=False is not implemented"),
    "own code": ("qwen2", {"auto_map": {"AutoModel": "x.Y"}}, "auto_map=.* brings its own code"),
    "rope type": (
        "llama",
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "rope_type='dynamic' is not implemented .implemented: default, linear, llama3, yarn",
    ),
    "rope without factor": ("llama", {"rope_scaling": {"type": "linear"}}, "has no 'factor'"),
    "rope with a null factor": ("llama", {"rope_scaling": {"type": "yarn", "factor": None}}, "has no 'factor'"),
    "rope with mscale": (
        "llama",
        {"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 0.7}},
        "rope_parameters: mscale=0.7 is not implemented .not part of rope_type 'yarn'",
    ),
    "rope in two ways": ("llama", {"rope_parameters": YARN, "rope_scaling": LINEAR}, "disagree"),
    "rope by layer type": (
        "qwen3",
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        "full_attention=.* is not implemented",
    ),
    "llama3 upside down": ("llama", {"rope_scaling": LLAMA3 | {"low_freq_factor": 5.0}}, "low_freq_factor=5.0 must be"),
    "partial rope": ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not implemented"),
    "partial rope, nested": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor=0.5 is not implemented",
    ),
    "theta": ("llama", {"rope_theta": 1.0}, "rope_theta=1.0 must be above 1"),
    "hidden size": ("llama", {"num_attention_heads": 3}, "hidden size 4096 is not a multiple of 3 attention heads"),
    "gpt2 hidden size": ("gpt2", {"n_head": 3}, "hidden size 64 is not a multiple of 3 attention heads"),
    "kv heads": ("llama", {"num_key_value_heads": 5}, "64 is not a multiple of num_key_value_heads=5"),
    "odd head_dim": ("llama", {"head_dim": 3}, "head_dim=3 is odd"),
    "null theta": ("llama", {"rope_theta": None}, "rope_theta=None must be above 1"),
    "null epsilon": ("llama", {"rms_norm_eps": None}, "rms_norm_eps=None is not of type float"),
    "window without a size": (
        "qwen2",
        {"use_sliding_window": False, "sliding_window": 8, "layer_types": ["sliding_attention"] * 30},
        "no sliding_window is in use",
    ),
    "layer types": ("qwen3", {"layer_types": ["chunked_attention"] * 30}, "layer_types='chunked_attention' is not"),
    "too few layer types": ("qwen3", {"layer_types": ["full_attention"]}, "1 entries for num_hidden_layers=30"),
    "dtype": ("llama", {"dtype": "float8_e4m3fn"}, "dtype='float8_e4m3fn' is not implemented .*bfloat16"),
    "eos": ("llama", {"eos_token_id": "</s>"}, "eos_token_id='</s>' is neither a token id nor a list"),
    "too many layers": ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is above"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    kind, changes, message = REFUSED[case]
    with pytest.raises(CheckpointError, match=message) as caught:
        config_from_dict(MINIMAL[kind] | changes, source="/models/x/config.json")
    assert str(caught.value).startswith("/models/x/config.json")


@every_family
def test_every_needed_key_is_missed_by_name(kind):
    for key in MINIMAL[kind].keys() - {"model_type"}:
        for raw in ({k: v for k, v in MINIMAL[kind].items() if k != key}, MINIMAL[kind] | {key: None}):
            with pytest.raises(CheckpointError, match=f"config.json has no {key!r}"):
                config_from_dict(raw)


@every_family
@pytest.mark.parametrize("value", [0, -1, "64", True, 64.0, [64], 10**30])
def test_a_size_is_a_positive_whole_number(kind, value):
    sizes = (MINIMAL[kind].keys() - {"model_type"}) | (
        {"n_inner"} if kind == "gpt2" else {"num_key_value_heads", "head_dim"}
    )
    for key in sizes:
        with pytest.raises(CheckpointError, match=f"{key}="):
            config_from_dict(MINIMAL[kind] | {key: value})


@pytest.mark.parametrize("value", [0, -1e-6, "1e-6", True, math.nan, math.inf])
@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta"])
def test_an_epsilon_and_a_base_are_positive_finite_numbers(key, value):
    with pytest.raises(CheckpointError, match=f"{key}="):
        config_from_dict(LLAMA | {key: value})


@pytest.mark.parametrize("key", ["tie_word_embeddings", "attention_bias", "mlp_bias"])
def test_a_switch_is_a_boolean(key):
    with pytest.raises(CheckpointError, match=f"{key}='false' is not of type bool"):
        config_from_dict(LLAMA | {key: "false"})


@every_family
def test_unknown_keys_that_are_off_and_ones_that_change_no_logit_are_harmless(kind):
    harmless = {
        "some_switch": False,
        "some_number": None,
        "pruned_heads": {},
        "architectures": ["X"],
        "_attn_implementation_autoset": True,
        "temperature": 0.6,
        "max_length": 4096,
        "pretraining_tp": 2,
        "transformers_version": "4.40.0",
        "partial_rotary_factor": 1.0,
    }
    harmless = {k: v for k, v in harmless.items() if kind != "gpt2" or k != "partial_rotary_factor"}
    assert config_from_dict(MINIMAL[kind] | harmless) == config_from_dict(MINIMAL[kind])


def test_no_config_json(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json does not exist: a model folder needs one"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "[" * 10**5]
)
def test_a_config_that_is_not_json(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        read_config(tmp_path)


def test_a_config_that_is_not_an_object(tmp_path):
    write(tmp_path, "[1]")
    with pytest.raises(CheckpointError, match=r"config\.json holds a list, not an object"):
        read_config(tmp_path)


def test_a_damaged_generation_config(tmp_path):
    write(tmp_path, generation={"eos_token_id": "x"})
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id='x' is neither"):
        read_config(tmp_path)


def test_generation_config_has_the_recommended_sampling_parameters(tmp_path):
    assert read_generation_config(tmp_path) == GenerationConfig()
    given = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.1, "repetition_penalty": 1.05}
    others = {
        "do_sample": True,
        "num_beams": 4,
        "pad_token_id": 0,
        "transformers_version": "4.51.0",
        "max_length": 9,
    }
    write(tmp_path, generation=given | others | {"max_new_tokens": 2048, "eos_token_id": [9, 8, 9]})
    config = read_generation_config(tmp_path)
    assert config == GenerationConfig((9, 8), given | {"max_tokens": 2048})
    assert SamplingParams(**config.sampling).temperature == 0.6
    write(tmp_path, generation=dict.fromkeys(given) | {"eos_token_id": None})
    assert read_generation_config(tmp_path) == GenerationConfig()


@pytest.mark.parametrize(
    "value",
    [-1.5, -(10**30), 10**30, math.nan, math.inf, True, "0.6", [[1]], {"a": 1}],
)
@pytest.mark.parametrize(
    "key", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens", "eos_token_id"]
)
def test_a_recommended_value_that_cannot_be_is_refused_by_name(tmp_path, key, value):
    if key == "eos_token_id" and type(value) is int:
        pytest.skip("an id, if not one of this vocabulary")
    write(tmp_path, generation={key: value})
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {key}="):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", -0.5), ("top_p", 1.5), ("top_p", 0), ("min_p", 2)]
)
def test_recommendations_have_the_bounds_of_sampling_parameters(tmp_path, key, value):
    write(tmp_path, generation={key: value})
    with pytest.raises(CheckpointError, match=rf"generation_config\.json: {key}=.* must be"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", "null"])
def test_a_generation_config_that_is_no_object(tmp_path, content):
    write(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json (cannot be read as JSON|holds a)"):
        read_config(tmp_path)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([10**6, 10**40, 0.5, 1.0, -1.0, 1e-5, 1e300, math.nan, math.inf])
    | st.sampled_from(
        ["", "silu", "gelu", "gelu_new", "float16", "llama3", "linear", "yarn", "sliding_attention", "é"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["rope_type", "type", "factor", "rope_theta", "x"]), inner, max_size=4
        )
    ),
    max_leaves=5,
)


@st.composite
def damaged_configs(draw):
    """A config as `transformers` writes it in full, with keys set to anything, removed, or added."""
    name = draw(st.sampled_from(list(ZOO)))
    raw = json.loads(
        json.dumps(sample(name).reference.config.to_dict() | {"model_type": ZOO[name][0], "dtype": None})
    )
    targets = [raw, raw["rope_parameters"]] if "rope_parameters" in raw else [raw]
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from(targets))
        key = draw(
            st.sampled_from([*target, "unknown", "rope_scaling", "rope_theta", "is_causal", "layer_types"])
        )
        if draw(st.booleans()):
            target.pop(key, None)
        else:
            target[key] = draw(anything)
    return raw


@pytest.mark.filterwarnings("ignore:`rope_scaling` is deprecated:FutureWarning")
@settings(max_examples=400)
@given(damaged_configs())
@pytest.mark.slow
def test_any_damage_is_refused_or_means_what_it_means_to_transformers(raw):
    try:
        config = config_from_dict(raw)
    except CheckpointError:
        return
    if config.rope is not None and config.head_dim < 10**5:
        frequency, factor = inverse_frequencies(config.rope, config.head_dim)
        assert frequency.isfinite().all() and math.isfinite(factor)
    try:
        expected = as_transformers_reads(raw)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError):
        return  # what it refuses, we may still read
    assert config == expected


def test_the_families_of_this_file_are_all_there_are():
    assert {kind for kind, _ in ZOO.values()} == set(FAMILIES)

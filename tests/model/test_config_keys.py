"""Which keys of a config.json are harmless, which are off, and which are refused: held against `transformers`."""

import ast
import dataclasses
import importlib
import inspect
import json
import math
import os
import re
import shutil

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from minillm.errors import CheckpointError
from minillm.model.config_keys import HARMLESS, is_off, read_json
from minillm.model.families import _ROPE_KEYS, FAMILIES, config_from_dict, read_config
from tests.model.zoo import COMMON, CONTEXT, GPT2, reference_model, sample, tokens

MINIMAL = {kind: COMMON | {"model_type": kind} for kind in FAMILIES} | {"gpt2": GPT2 | {"model_type": "gpt2"}}
every_family = pytest.mark.parametrize("kind", FAMILIES)

# The base class of transformers 4.57.1, the last of version 4, in a to_dict() of any family: history does not change.
VERSION_4 = {
    "return_dict": True, "output_hidden_states": False, "output_attentions": False, "torchscript": False,
    "torch_dtype": "float32", "use_bfloat16": False, "tf_legacy_loss": False, "pruned_heads": {},
    "tie_word_embeddings": False, "chunk_size_feed_forward": 0, "is_encoder_decoder": False, "is_decoder": False,
    "cross_attention_hidden_size": None, "add_cross_attention": False, "tie_encoder_decoder": False,
    "architectures": ["X"], "finetuning_task": None, "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "tokenizer_class": None, "prefix": None, "bos_token_id": 1,
    "pad_token_id": None, "eos_token_id": 2, "sep_token_id": None, "decoder_start_token_id": None,
    "task_specific_params": None, "problem_type": None, "_name_or_path": "/data/model", "xla_device": None,
    "_attn_implementation_autoset": True, "_commit_hash": "0a1b2c", "transformers_version": "4.57.1",
    "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1, "temperature": 1.0,
    "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0,
    "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None, "forced_eos_token_id": None,
    "remove_invalid_values": False, "exponential_decay_length_penalty": None, "suppress_tokens": None,
    "begin_suppress_tokens": None, "num_beam_groups": 1, "diversity_penalty": 0.0,
}  # fmt: skip

# Found in files of supported families, each with a value that is not off.
PASS = {
    "n_special": 3, "predict_special_tokens": True, "output_past": True, "_num_labels": 1, "num_labels": 3,
    "n_ctx": 128, "internal_version": "7b-alpha-v2.33.0.30", "_model_name_or_path": "Smollm2 135M", "unk_token_id": 0,
    "max_sequence_length": 2048, "max_seq_len": 2048, "model_max_length": 2048, "seq_length": 2048,
    "is_llama_config": True, "unsloth_version": "2024.9", "unsloth_fixed": True,
    "transformers.js_config": {"dtype": "q4"}, "pretraining_tp": 2, "_flash_attn_2_enabled": True,
    "use_flash_attention": True, "_attn_implementation": "eager", "use_cache": False, "attention_dropout": 0.1,
    "hidden_dropout": 0.1, "embd_pdrop": 0.3, "layerdrop": 0.1, "initializer_range": 0.5, "init_std": 0.5,
    "init_method_std": 0.1, "gradient_checkpointing": True, "router_aux_loss_coef": 0.1, "neftune_noise_alpha": 5,
    "id2label": {"0": "a"}, "label2id": {"a": 0}, "problem_type": "regression", "summary_type": "mean",
    "finetuning_task": "mnli", "task_specific_params": {"x": {"do_sample": True}}, "image_token_id": 7,
    "pad_token_id": 0, "decoder_start_token_id": 1, "bos_token": "<s>", "tokenizer_class": "T",
    "tokenizer_padding_side": "left", "chat_template": "{{ x }}", "prefix": "a", "vocab_file": "v.json",
    "max_window_layers": 1, "architectures": ["X"], "torch_dtype": "float32", "torchscript": True, "is_decoder": True,
    "use_bfloat16": True, "xla_device": True, "temperature": 0.2, "top_k": 5, "top_p": 0.5, "suppress_tokens": [1],
    "begin_suppress_tokens": [2], "bad_words_ids": [[1]], "forced_eos_token_id": 2, "num_beams": 4, "min_length": 5,
    "no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "num_return_sequences": 2, "max_new_tokens": 5,
    "chunk_size_feed_forward": 4, "_commit_hash": "a", "output_scores": True, "reorder_and_upcast_attn": True,
}  # fmt: skip

# Off: the model is the same as without the key.
OFF = {
    "final_logit_softcapping": None, "attn_logit_softcapping": 0.0, "logits_scaling": 1, "residual_multiplier": 1.0,
    "embedding_multiplier": 1.0, "logit_scale": 1.0, "rope_ratio": 1, "rotary_pct": 1.0, "num_experts": 0,
    "num_nextn_predict_layers": 0, "use_qk_norm": False, "rope_interleaved": False, "alibi": False, "clip_qkv": None,
    "add_cross_attention": False, "is_encoder_decoder": False, "pruned_heads": {}, "quantization_config": None,
    "auto_map": {}, "use_parallel_residual": False, "no_rope_layers": [], "position_embedding_type": "",
    "is_causal": True,
}  # fmt: skip

# Each would make another model in some family, and not one of ours.
REFUSED = {
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "query_pre_attn_scalar": 256,
    "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "logits_scaling": 8.0, "attention_multiplier": 1.0,
    "logit_scale": 0.0625, "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 256, "rope_ratio": 2,
    "softmax_scale": 1.0, "partial_rotary_factor": 0.5, "rotary_pct": 0.25, "rotary_dim": 32,
    "rope_interleaved": True, "no_rope_layers": [1, 0], "use_rope": False, "is_causal": False, "use_rms_norm": False,
    "alibi": True, "position_embedding_type": "alibi", "use_qk_norm": True, "qk_layernorm": True, "clip_qkv": 8.0,
    "use_parallel_residual": True, "norm_type": "layernorm", "num_local_experts": 8, "num_experts": 4,
    "num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1,
    "kv_lora_rank": 512, "v_head_dim": 16, "attention_chunk_size": 8192, "sliding_window_pattern": 6,
    "add_cross_attention": True, "is_encoder_decoder": True, "pruned_heads": {"0": [1]}, "text_config": {"a": 1},
    "vision_config": {"a": 1}, "quantization": {"bits": 4},
    "compression_config": {"format": "int"}, "auto_map": {"AutoModel": "x.Y"},
    "per_layer_config": {"0": {"head_dim": 8}}, "block_configs": [{"a": 1}], "use_bidirectional_attention": True,
    "mtp_layer_types": ["full_attention"], "attn_temperature_tuning": True, "output_multiplier_scale": 0.5,
    "initial_context_length": 4096, "factor": math.nan,
}  # fmt: skip


def verdicts(kind: str, keys: dict) -> dict[str, str | None]:
    """Return the verdict on each key, added to the family's smallest config.json: None if the model is the same."""

    def verdict(key: str, value: object) -> str | None:
        try:
            same = config_from_dict(MINIMAL[kind] | {key: value}) == config_from_dict(MINIMAL[kind])
        except CheckpointError as error:
            return str(error)
        return None if same else "another model"

    return {key: verdict(key, value) for key, value in keys.items()}


@every_family
def test_a_harmless_key_passes_whatever_its_value(kind):
    assert len(PASS) > 60
    assert not {key: said for key, said in verdicts(kind, PASS).items() if said}


@every_family
def test_a_key_that_is_off_passes(kind):
    assert not {key: said for key, said in verdicts(kind, OFF).items() if said}


@every_family
def test_a_key_that_makes_another_model_is_refused(kind):
    assert len(REFUSED) > 50
    for key, said in verdicts(kind, REFUSED).items():
        assert re.match(rf"config.json: {key}=.* is not implemented \(.*\)", said or ""), (key, said)


def test_the_message_names_the_way_out():
    with pytest.raises(CheckpointError, match=r"if you are sure that it does not, delete it from the file"):
        config_from_dict(MINIMAL["llama"] | {"my_converters_note": "a"})


@every_family
def test_a_full_config_of_transformers_4_is_read(kind):
    raw = VERSION_4 | MINIMAL[kind]
    assert config_from_dict(raw) == config_from_dict(
        MINIMAL[kind] | {key: raw[key] for key in ("tie_word_embeddings", "bos_token_id", "eos_token_id")}
    )


@every_family
def test_every_key_of_the_config_classes_is_known(kind):
    """A key that a new version of `transformers` adds must be read, or be harmless, or be off by default."""
    config = CONFIG_MAPPING[kind](**{k: v for k, v in MINIMAL[kind].items() if k != "model_type"})
    written = json.loads(json.dumps(config.to_dict())) | {"dtype": None}
    fields = {f.name for f in dataclasses.fields(config)} & written.keys()
    decoding = transformers.GenerationConfig._get_default_generation_params()
    base = transformers.PretrainedConfig().to_dict()
    known = {*FAMILIES[kind].keys, *_ROPE_KEYS}
    for key in fields | written.keys() | base.keys() | decoding.keys():
        default = written.get(key, base.get(key))
        assert key in known or HARMLESS.fullmatch(key) or (key not in decoding and is_off(key, default)), key
    config_from_dict(written | decoding | {"model_type": kind})


# Keys that the models of `transformers` read, but that change no logit of a causal model in inference.
READ_IN_VAIN = {
    *("_attn_implementation", "attention_dropout", "pad_token_id", "attn_pdrop", "embd_pdrop", "resid_pdrop"),
    *("hidden_dropout", "classifier_dropout", "initializer_range", "num_labels", "problem_type", "use_cache"),
    *(
        "summary_first_dropout",
        "summary_last_dropout",
        "summary_proj_to_labels",
        "summary_use_proj",
        "summary_type",
    ),
    *(
        "summary_activation",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "reorder_and_upcast_attn",
    ),
}


@every_family
def test_no_harmless_key_is_read_by_the_models_of_transformers(kind):
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    read = {
        node.attr
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("config", "self.config")
    }
    assert {"vocab_size", "_attn_implementation"} <= read  # the walk finds what is there
    assert not {key for key in read if HARMLESS.fullmatch(key)} - READ_IN_VAIN


@pytest.mark.parametrize("key", sorted({*PASS, *OFF} - {"pruned_heads", "torchscript", "per_layer_config"}))
def test_transformers_computes_the_same_with_and_without_a_key_that_passes(key):
    def logits(raw: dict) -> torch.Tensor:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**{k: v for k, v in raw.items() if k != "model_type"})
        model = transformers.LlamaForCausalLM(config).eval()
        for parameter in model.parameters():
            parameter.data = torch.linspace(-0.3, 0.3, parameter.numel()).reshape(parameter.shape)
        with torch.no_grad():
            return model(torch.tensor([[1, 2, 3]])).logits

    small = MINIMAL["llama"] | {"vocab_size": 32, "num_hidden_layers": 1}
    torch.testing.assert_close(logits(small | {key: (PASS | OFF)[key]}), logits(small))


# name of the zoo: what its config.json says besides, in other spellings
ODD = {
    "llama": VERSION_4 | {"rope_theta": 10_000, "rope_scaling": None, "num_key_value_heads": 2, "head_dim": None},
    "linear-rope": {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4}},
    "yarn-rope": {"rope_parameters": None, "rope_scaling": {"type": "yarn", "factor": 4.0, "finetuned": True,
                                                            "original_max_position_embeddings": 32}},
    "qwen2-window": VERSION_4 | {"tie_word_embeddings": False, "layer_types": None},
    "qwen3": VERSION_4 | {"tie_word_embeddings": True, "sliding_window": None, "rms_norm_eps": 1e-6},
    "mistral-window": {"layer_types": None, "logits_scaling": 1.0, "max_window_layers": 1},
    "gpt2": VERSION_4 | {"tie_word_embeddings": True, "n_ctx": CONTEXT, "n_special": 0, "n_inner": 256, "dropout": 0.3},
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_odd_config_gives_the_model_that_transformers_makes_of_it(name, tmp_path):
    folder = shutil.copytree(sample(name).folder, tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text()) | ODD[name]
    (folder / "config.json").write_text(json.dumps(raw))
    config = CONFIG_MAPPING[raw["model_type"]].from_dict(dict(raw))
    reference = transformers.AutoModelForCausalLM.from_config(config).eval()
    reference.load_state_dict(reference_model(name).state_dict())
    ours = dataclasses.replace(sample(name), config=read_config(folder), reference=reference)
    assert ours.config == sample(name).config
    torch.testing.assert_close(ours.expected(tokens(40)), sample(name).expected(tokens(40)))


@pytest.mark.parametrize("value", [0, -1, 2**63, 10**400, 1.5, True, "8", [8], {"a": 8}, math.nan, math.inf])
@pytest.mark.parametrize(
    "key", ["sliding_window", "max_window_layers", "max_position_embeddings", "head_dim"]
)
def test_a_size_is_refused_before_it_is_used(key, value):
    if key == "max_window_layers" and value == 0 and value is not True:
        pytest.skip("every layer may have a window")
    with pytest.raises(CheckpointError, match=rf"config.json: {key}="):
        config_from_dict(MINIMAL["qwen3"] | {key: value})


@pytest.mark.parametrize(
    ("kind", "key"),
    [("llama", "max_position_embeddings"), ("llama", "num_hidden_layers"), ("gpt2", "n_layer")],
)
def test_a_size_that_no_tensor_confirms_has_a_limit(kind, key):
    with pytest.raises(CheckpointError, match=rf"{key}=2147483648 is above \d+"):
        config_from_dict(MINIMAL[kind] | {key: 2**31})


def test_layer_types_that_a_family_does_not_have():
    """Mistral's window is for every layer in `transformers`, whatever layer_types says."""
    raw = MINIMAL["mistral"] | {"sliding_window": 8}
    same = raw | {"layer_types": ["sliding_attention"] * 3}
    assert config_from_dict(same) == config_from_dict(raw)
    with pytest.raises(CheckpointError, match="layer_types says otherwise"):
        config_from_dict(raw | {"layer_types": ["full_attention"] * 3})
    plain = MINIMAL["llama"] | {"layer_types": ["full_attention"] * 3}
    assert config_from_dict(plain) == config_from_dict(MINIMAL["llama"])


def test_a_message_stays_short_and_can_be_printed():
    deep = json.loads("[" * 900 + "]" * 900)
    for key, value in {
        "x": "y" * 10**6,
        "deep": deep,
        "k" * 10**5: 1,
        "\ud800": 1,
        "hidden_size": "9" * 10**5,
    }.items():
        with pytest.raises(CheckpointError) as caught:
            config_from_dict(MINIMAL["llama"] | {key: value})
        assert len(str(caught.value)) < 400
        str(caught.value).encode()


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}", b'{"a": 1', b"[" * 10**5, b"9" * 5000, b"", b'{"a": \x00}']
)
def test_a_file_that_is_no_json(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "kind"), [("[1]", "list"), ("3", "int"), ('"a"', "str"), ("null", "NoneType")]
)
def test_json_that_is_not_an_object(content, kind, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"holds a {kind}, not an object"):
        read_json(tmp_path / "a.json")


def test_what_is_not_a_file_is_not_opened(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("folder", "pipe", "loop", "\ud800"):
        with pytest.raises(CheckpointError):
            read_json(tmp_path / name)

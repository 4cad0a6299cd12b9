"""Keys of a checkpoint's JSON files: each is read as its table says, is known to be harmless, or is refused.

A family's table (families.py) has one `Key` for each key that shapes the model. Every other key must be harmless or
off. Anything else raises `CheckpointError`, so a model never runs as a silently different one.
"""

import json
import re
import reprlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

from minillm.errors import CheckpointError

Raw = Mapping[str, Any]
MISSING: Any = object()
LARGEST = 2**63 - 1

# Keys that no logit depends on, by kind; `*` is any part of a name. A test compares them with `transformers`.
_HARMLESS = {
    "origin": "architectures model_type *name_or_path version *_version _commit_hash _from_* is_llama_config unsloth_* "
    "transformers.js_config",
    "text": "*_token_id *_token_ids bos_token eos_token pad_token unk_token sep_token cls_token mask_token tokenizer_* "
    "chat_template prefix vocab_file max_len *max_length max_seq_len max_seq_length max_sequence_length seq_len "
    "seq_length min_length n_ctx max_window_layers n_special predict_special_tokens",
    "training": "*dropout* *_pdrop layerdrop initializer_* init_std init_device init_method* *_loss *_loss_* "
    "gradient_checkpointing* neftune_* finetuned finetuning_task task_specific_params",
    "other heads": "num_labels _num_labels id2label label2id problem_type summary_*",
    "returned": "output_attentions output_hidden_states output_logits output_past output_router_logits output_scores "
    "*return_dict* tie_last_hidden_states keys_to_ignore_at_inference remove_invalid_values",
    "execution": "*attn_implementation* *experts_implementation* _flash_attn_* use_flash_att* use_cache is_decoder "
    "cache_implementation pretraining_tp chunk_size_feed_forward reorder_and_upcast_attn torchscript use_bfloat16 "
    "xla_device",
    "decoding": "do_sample early_stopping temperature top_h top_k top_p min_p typical_p num_beams num_beam_groups "
    "num_return_sequences *no_repeat_ngram_size *repetition_penalty diversity_penalty length_penalty "
    "exponential_decay_length_penalty penalty_alpha suppress_tokens begin_suppress_tokens bad_words_ids "
    "epsilon_cutoff eta_cutoff min_new_tokens max_new_tokens *assistant_* target_lookbehind",
}
HARMLESS = re.compile("|".join(translate(name) for kind in _HARMLESS.values() for name in kind.split()))
# An unknown factor is off at 1, not at 0. One of attention scores never is: it may replace 1 / sqrt(head_dim).
_FACTOR = re.compile(r"\w*(multiplier|scale|scaling|factor|pct|ratio|scalar)")
_OF_SCORES = re.compile(r"\w*(att|softmax|query)\w*")
# A part that every model here has is not off at false.
_PART = re.compile(r"(is_|use_)?(causal(_mask)?|rope|rotary\w*|rms_?norm|gated_mlp|pre_norm)")


@dataclass(frozen=True)
class Key:
    """Describe how one key is read: its type, and its value if it is absent or null.

    Without `absent` the key must be there; without `null` a null is refused. `choices` maps each implemented value to
    the package's word for it. A number lies above `above` and is at most `high`. `fields` names what the value sets, if
    that is not the key's own name.
    """

    kind: type[Any] = int
    absent: Any = MISSING
    null: Any = MISSING
    choices: Mapping[Any, Any] | None = None
    above: int = 0
    high: int = LARGEST
    fields: tuple[str, ...] = ()

    def read(self, name: str, raw: Raw, source: str) -> Any:
        """Return the value of this key in `raw`. Raises `CheckpointError` naming the file, the key and the value."""
        value: Any = raw.get(name)
        if value is None and self.absent is MISSING:
            raise CheckpointError(f"{source} has no {name!r}, which this kind of model needs")
        if name not in raw:
            return self.absent
        if value is None and self.null is not MISSING:
            return self.null
        shown = f"{source}: {name}={reprlib.repr(value)}"
        if self.kind is float and type(value) is int and abs(value) <= LARGEST:
            value = float(value)
        if type(value) is not self.kind:
            raise CheckpointError(f"{shown} is not of type {self.kind.__name__}")
        if self.choices is not None:
            if value not in self.choices:
                raise refusal(source, name, value, "implemented: " + ", ".join(map(repr, self.choices)))
            return self.choices[value]
        if self.kind in (int, float) and not self.above < value <= self.high:
            bound = f"is above {self.high}" if value > self.high else f"must be above {self.above} and finite"
            raise CheckpointError(f"{shown} {bound}")
        return value


def read_keys(raw: Raw, keys: Mapping[str, Key], source: str) -> dict[str, Any]:
    """Return what a table's keys set, by field."""
    return {
        field: key.read(name, raw, source) for name, key in keys.items() for field in key.fields or (name,)
    }


def refuse_others(raw: Raw, known: Container[str], source: str, why: str, hints: Mapping[str, str]) -> None:
    """Raise `CheckpointError` if `raw` has a key that is neither `known`, nor harmless, nor off."""
    for name in raw:
        if name not in known and not HARMLESS.fullmatch(name) and not is_off(name, raw[name]):
            raise refusal(source, name, raw[name], hints.get(name, why))


def is_off(name: str, value: Any) -> bool:
    """Return whether an unknown key leaves any model as it is: null, false, 0, empty, or a factor of 1."""
    if type(value) is bool:
        return not value and not _PART.fullmatch(name)
    if type(value) in (int, float):
        if _FACTOR.fullmatch(name):
            return bool(value == 1 and not _OF_SCORES.fullmatch(name))
        return bool(value == 0)
    return bool(value is None or value in ("", [], {}))


def refusal(source: str, name: str, value: Any, hint: str) -> CheckpointError:
    """Return the error for a value that is not implemented; `hint` says what is, or what to do."""
    shown = name if re.fullmatch(r"[\w.]{1,80}", name, re.ASCII) else reprlib.repr(name)
    return CheckpointError(f"{source}: {shown}={reprlib.repr(value)} is not implemented ({hint})")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises `CheckpointError` for anything else."""
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a regular file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: a model folder needs one") from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object")
    return content

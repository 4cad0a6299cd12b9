"""Keys of a checkpoint's JSON files: each is read as its table says, is known to be harmless, or is refused.

A family's table (families.py) has one `Key` for each key that shapes the model. Every other key must be harmless or
off. Anything else raises `CheckpointError`, so a model never runs as a silently different one.
"""

import json
import re
import reprlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillm.errors import CheckpointError

Raw = Mapping[str, Any]
MISSING: Any = object()
LARGEST = 2**63 - 1

# Kinds of keys that no logit depends on. A test compares them with the config classes of `transformers`.
_HARMLESS_KINDS = {
    "origin": r"architectures|model_type|\w*name_or_path|(\w+_)?version|_commit_hash|_from_\w+|is_llama_config|"
    r"unsloth_\w+|transformers\.js_config",
    "text": r"\w+_token_ids?|(bos|eos|pad|unk|sep|cls|mask)_token|tokenizer_\w+|chat_template|prefix|vocab_file|"
    r"(\w*max_)?(sequence_|seq_)?len(gth)?|n_ctx|max_window_layers|n_special|predict_special_tokens",
    "training": r"\w*dropout\w*|\w+_pdrop|layerdrop|initializer_\w+|init_(std|device|method\w*)|\w+_loss(_\w+)?|"
    r"gradient_checkpointing\w*|neftune_\w+|finetuned|finetuning_task|task_specific_params",
    "other heads": r"_?num_labels|id2label|label2id|problem_type|summary_\w+",
    "what is returned": r"output_(attentions|hidden_states|logits|past|router_logits|scores)|\w*return_dict\w*|"
    r"tie_last_hidden_states|keys_to_ignore_at_inference|remove_invalid_values",
    "how it is computed": r"_?(attn|experts)_implementation\w*|_flash_attn_\w+|use_flash_att\w+|use_cache|is_decoder|"
    r"cache_implementation|pretraining_tp|chunk_size_feed_forward|reorder_and_upcast_attn|torchscript|use_bfloat16|"
    r"xla_device",
    "decoding": r"do_sample|early_stopping|temperature|top_[khp]|min_p|typical_p|num_(beams|beam_groups)|"
    r"num_return_sequences|(encoder_)?(no_repeat_ngram_size|repetition_penalty)|(diversity|exponential_decay_length|length)_penalty|"
    r"penalty_alpha|(begin_)?suppress_tokens|bad_words_ids|(epsilon|eta)_cutoff|(min|max)_new_tokens|min_length|"
    r"(num_)?assistant_\w+|target_lookbehind",
}
HARMLESS = re.compile("|".join(_HARMLESS_KINDS.values()))
_FACTOR = re.compile(r"\w*(multiplier|scale|scaling|factor|pct|ratio|scalar)")  # off at 1, not at 0
_OF_SCORES = re.compile(
    r"\w*(att|softmax|query)\w*"
)  # a factor that may replace 1 / sqrt(head_dim): never off
_PART = re.compile(
    r"(is_|use_)?(causal(_mask)?|rope|rotary\w*|rms_?norm|gated_mlp|pre_norm)"
)  # no boolean is off


@dataclass(frozen=True, kw_only=True)
class Key:
    """How one key is read: its type, and its value if it is absent or null.

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

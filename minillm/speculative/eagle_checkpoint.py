"""Read and write an EAGLE-3 head as a folder: config.json and safetensors, as its authors, vLLM and SGLang have it.

    fc.weight                                   [hidden, 3 hidden]   fuses three hidden states of the model
    midlayer.{input_layernorm, hidden_norm}     [hidden]             of the embedding and of the feature
    midlayer.self_attn.{q, k, v}_proj           [.., 2 hidden]       read both of them
    midlayer.self_attn.o_proj, midlayer.post_attention_layernorm, midlayer.mlp.*    as in a Llama
    norm.weight, lm_head.weight                 [hidden], [draft vocabulary, hidden]
    d2t                                         [draft vocabulary]   token id of entry i, minus i
    t2d                                         [vocabulary]         true for a token that has an entry; not read
    embed_tokens.weight                         [vocabulary, hidden] if absent, the model's embedding

`layers.0.` is another spelling of `midlayer.`.

Source: github.com/SafeAILab/EAGLE, `eagle/model/cnets.py`; vLLM, `model_executor/models/llama_eagle3.py`.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from minillm import store
from minillm.config import ModelConfig
from minillm.errors import CheckpointError
from minillm.model.checkpoint import SINGLE, Checkpoint, Loader, save_tensors
from minillm.model.config_keys import Key, Raw, read_json, read_keys, refusal, refuse_others
from minillm.model.embedding import Embedding
from minillm.model.families import config_from_dict
from minillm.model.mlp import DenseMlp
from minillm.model.schemes import Dense, Parts
from minillm.model.stored import CONFIG
from minillm.model.transformer import Block, Transformer, Weights
from minillm.speculative.eagle import EagleHead

LAYER, OTHER_LAYER = "midlayer", "layers.0"
LAYER_IDS = "eagle_aux_hidden_state_layer_ids"
# The keys that a head has in addition to those of a Llama, and those of its table "eagle_config".
_KEYS = {
    "draft_vocab_size": Key(int, None, None),
    "target_hidden_size": Key(int, None, None),
    "norm_before_residual": Key(bool, False, False),
    "eagle_config": Key(dict, {}, {}),
    LAYER_IDS: Key(list, None, None),
}
_IN_TABLE = {
    LAYER_IDS: Key(list, None, None),
    **{
        name: Key(bool, True, True, {True: True})
        for name in (
            "use_aux_hidden_state",
            "use_input_layernorm_in_first_layer",
            "use_last_layernorm",
            "next_layer_regular",
        )
    },
}
_OTHER_HEAD = "choose a head that was trained for this model, or train one: minillm train-eagle"


def load_head(folder: Path, target: Transformer) -> EagleHead:
    """Return the head in `folder` for the model `target`, on its device and in its dtype.

    Raises `CheckpointError` if it is not an EAGLE-3 head, if it was trained for a model of other sizes, and naming any
    tensor that is missing, has the wrong shape, or is not part of such a head.
    """
    source = str(folder / CONFIG)
    raw = read_json(folder / CONFIG)
    config, own = _read_config(raw, source)
    _check_sizes(config, own, target.config, source)
    taps = layer_ids_to_taps(own[LAYER_IDS], target.config.num_hidden_layers, source)
    with Checkpoint(folder) as checkpoint:
        if "fc.weight" not in checkpoint.names:
            raise CheckpointError(
                f"{folder} is not an EAGLE-3 head, because it has no tensor 'fc.weight': {_OTHER_HEAD}"
            )
        loader = Loader(checkpoint, config, target.device, target.dtype, Dense())
        decoder = Transformer(config, _weights(loader, own["draft_vocab_size"], target), target.ops)
        head = EagleHead(
            decoder,
            Dense().load(loader, Parts(("fc",), len(taps) * config.hidden_size, (config.hidden_size,))),
            loader.norm(f"{_layer(loader)}.hidden_norm", config.hidden_size),
            _target_ids(loader, own["draft_vocab_size"]),
            taps,
            own["norm_before_residual"],
        )
        checkpoint.unread.discard("t2d")  # it says the same as d2t
        loader.refuse_unread()
    return head


def layer_ids_to_taps(ids: list[Any] | None, num_layers: int, source: str) -> tuple[int, ...]:
    """Return the layers after which a head reads hidden states. `ids` names the layers whose *inputs* it reads.

    The input of layer i is the output of layer i - 1. Without ids, they are the published ones: 2, half of the layers,
    and three before the end. Raises `CheckpointError` for an id that the model does not have.
    """
    if ids is None:
        ids = [2, num_layers // 2, num_layers - 3]
        if not all(0 < i < num_layers for i in ids):
            raise CheckpointError(
                f"{source} names no {LAYER_IDS}, and the usual ones, {ids}, do not fit a model of {num_layers} layers: "
                f"write those of the training into eagle_config"
            )
    for i in ids:
        if type(i) is not int or not 0 < i < num_layers:
            raise refusal(
                source, LAYER_IDS, ids, f"the model has {num_layers} layers: use 1 to {num_layers - 1}"
            )
    return tuple(i - 1 for i in ids)


def check_new(folder: Path) -> None:
    """Raise `ValueError` if `folder` is there already."""
    if folder.exists():
        raise ValueError(f"{folder} exists: choose a new folder, or remove it")


def save_head(head: EagleHead, folder: Path, training: Mapping[str, Any]) -> None:
    """Write a head as a folder, in bfloat16, without an embedding, and `training` as its training.json.

    The folder appears when it is complete. Raises `ValueError` if it is there already.
    """
    check_new(folder)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        store.write(partial / CONFIG, json.dumps(_config_json(head), indent=2) + "\n")
        store.write(partial / "training.json", json.dumps(training, indent=2) + "\n")
        save_tensors(_tensors(head), partial / SINGLE)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _config_json(head: EagleHead) -> dict[str, Any]:
    c = head.decoder.config
    assert c.rope is not None
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "draft_vocab_size": len(head.target_ids),
        "eagle_config": {LAYER_IDS: [tap + 1 for tap in head.taps], "use_aux_hidden_state": True},
        "norm_before_residual": head.norm_before_residual,
        "model_type": "llama",
        "vocab_size": c.vocab_size,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": c.max_position_embeddings,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope.theta,
        "tie_word_embeddings": False,
        "bos_token_id": c.bos_token_id,
        "eos_token_id": list(c.eos_token_ids) or None,
        "torch_dtype": "bfloat16",
    }


def _tensors(head: EagleHead) -> dict[str, Tensor]:
    """Return the tensors of a head whose projections are `Linear`, by name."""
    c, weights = head.decoder.config, head.decoder.weights
    [block] = weights.blocks
    mlp: Any = block.mlp

    def stored(projection: Any) -> Tensor:  # [out, in]
        return cast(Tensor, projection.weight.t())

    qkv, gate_up = stored(block.qkv), stored(mlp.gate_up)
    q, k, v = qkv.split((c.q_size, c.kv_size, c.kv_size))
    gate, up = gate_up.chunk(2)
    floats = {
        "fc": stored(head.fc),
        f"{LAYER}.hidden_norm": head.hidden_norm.weight,
        f"{LAYER}.input_layernorm": block.attention_norm.weight,
        f"{LAYER}.post_attention_layernorm": block.mlp_norm.weight,
        f"{LAYER}.self_attn.q_proj": q,
        f"{LAYER}.self_attn.k_proj": k,
        f"{LAYER}.self_attn.v_proj": v,
        f"{LAYER}.self_attn.o_proj": stored(block.o),
        f"{LAYER}.mlp.gate_proj": gate,
        f"{LAYER}.mlp.up_proj": up,
        f"{LAYER}.mlp.down_proj": stored(mlp.down),
        "norm": weights.final_norm.weight,
        "lm_head": stored(weights.lm_head),
    }
    d2t = head.target_ids - torch.arange(len(head.target_ids))
    t2d = torch.zeros(c.vocab_size, dtype=torch.bool).index_fill_(0, head.target_ids, True)
    matrices = {f"{name}.weight": tensor.detach().bfloat16().contiguous() for name, tensor in floats.items()}
    return {**matrices, "d2t": d2t, "t2d": t2d}


def _read_config(raw: Raw, source: str) -> tuple[ModelConfig, dict[str, Any]]:
    """Return the sizes of the head's decoder, and the values of the keys that only a head has."""
    if raw.get("model_type") != "llama":
        raise refusal(
            source, "model_type", raw.get("model_type"), "an EAGLE-3 head has a Llama layer: 'llama'"
        )
    own = read_keys(raw, _KEYS, source)
    table: Mapping[str, Any] = own.pop("eagle_config")
    refuse_others(table, _IN_TABLE, f"{source}: eagle_config", "unknown, and it may change the head", {})
    in_table = read_keys(table, _IN_TABLE, f"{source}: eagle_config")
    own[LAYER_IDS] = own[LAYER_IDS] or in_table[LAYER_IDS]
    config = config_from_dict({name: value for name, value in raw.items() if name not in _KEYS}, source)
    if config.num_hidden_layers != 1:
        raise refusal(
            source, "num_hidden_layers", config.num_hidden_layers, f"an EAGLE-3 head has 1: {_OTHER_HEAD}"
        )
    own["draft_vocab_size"] = own["draft_vocab_size"] or config.vocab_size
    return config, own


def _check_sizes(head: ModelConfig, own: Mapping[str, Any], target: ModelConfig, source: str) -> None:
    sizes = {"hidden_size": head.hidden_size, "target_hidden_size": own["target_hidden_size"]}
    for name, size in sizes.items():
        if size not in (None, target.hidden_size):
            raise CheckpointError(
                f"{source}: the head is for a model with hidden size {size} ({name}), and this model has "
                f"{target.hidden_size}: {_OTHER_HEAD}"
            )
    if head.vocab_size != target.vocab_size:
        raise CheckpointError(
            f"{source}: the head is for a model with a vocabulary of {head.vocab_size} tokens, and this model has "
            f"{target.vocab_size}: {_OTHER_HEAD}"
        )
    if own["draft_vocab_size"] > head.vocab_size:
        raise CheckpointError(
            f"{source}: draft_vocab_size={own['draft_vocab_size']} exceeds vocab_size={head.vocab_size}: it is damaged"
        )


def _layer(loader: Loader) -> str:
    """Return how this checkpoint spells the name of the layer."""
    return next(
        (LAYER for name in loader.checkpoint.names if name.startswith(f"{LAYER}.")),
        OTHER_LAYER,
    )


def _weights(loader: Loader, draft_vocab_size: int, target: Transformer) -> Weights:
    """Read the decoder: its layer, its last norm and its logits. The embedding may be that of `target`."""
    c, layer, dense = loader.config, _layer(loader), Dense()
    embed = target.weights.embed
    if "embed_tokens.weight" in loader.checkpoint.names:
        embed = Embedding(loader.tensor("embed_tokens.weight", (c.vocab_size, c.hidden_size)))

    def projection(
        module: str, parts: tuple[str, ...], size_in: int, sizes: tuple[int, ...], bias: bool
    ) -> Any:
        names = tuple(f"{layer}.{module}.{part}_proj" for part in parts)
        return dense.load(loader, Parts(names, size_in, sizes, bias))

    h, m = c.hidden_size, c.intermediate_size
    block = Block(
        attention_norm=loader.norm(f"{layer}.input_layernorm", h),
        qkv=projection("self_attn", ("q", "k", "v"), 2 * h, (c.q_size, c.kv_size, c.kv_size), c.qkv_bias),
        o=projection("self_attn", ("o",), c.q_size, (h,), c.o_bias),
        mlp_norm=loader.norm(f"{layer}.post_attention_layernorm", h),
        mlp=DenseMlp(
            projection("mlp", ("gate", "up"), h, (m, m), c.mlp_bias),
            projection("mlp", ("down",), m, (h,), c.mlp_bias),
        ),
    )
    lm_head = dense.load(loader, Parts(("lm_head",), h, (draft_vocab_size,)))
    return Weights(embed, [block], loader.norm("norm", h), lm_head)


def _target_ids(loader: Loader, draft_vocab_size: int) -> Tensor:
    """Return the token id of each entry of the draft vocabulary, [draft_vocab_size] int64."""
    vocab_size, entries = loader.config.vocab_size, torch.arange(draft_vocab_size)
    if draft_vocab_size == vocab_size and "d2t" not in loader.checkpoint.names:
        return entries.to(loader.device)
    ids = entries + loader.stored("d2t", (draft_vocab_size,), (torch.int64, torch.int32))
    if outside := ids[(ids < 0) | (ids >= vocab_size)].tolist():
        raise CheckpointError(
            f"{loader.checkpoint.path}: d2t names token {outside[0]}, and the vocabulary has {vocab_size} tokens: it "
            "is damaged, or of another model"
        )
    return ids.to(loader.device)

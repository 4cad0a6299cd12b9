"""The tiny model of tests/engine with draft models: itself, itself with noise in its weights, and a stranger."""

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import LLM
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import KVCache
from minillm.model.transformer import Transformer
from tests.engine import tiny

NUM_DRAFTS = 4


@cache
def reference(
    noise: float = 0.0, vocab_size: int = tiny.VOCAB_SIZE, seed: int = 0, positions: int = tiny.CONTEXT
) -> LlamaForCausalLM:
    """Return the tiny model with `noise` added to every weight, and with `vocab_size` rows in its embeddings.

    A `seed` other than 0 gives another random model of one layer.
    """
    torch.manual_seed(100 + seed)
    if seed:
        config = deepcopy(tiny.reference().config)
        config.update({"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1})
        return LlamaForCausalLM(LlamaConfig(**config.to_dict())).eval()
    model = deepcopy(tiny.reference())
    model.config.max_position_embeddings = positions
    model.resize_token_embeddings(vocab_size, mean_resizing=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * weight.std().nan_to_num() * torch.randn_like(weight)
    return model


@cache
def folder(**changes: Any) -> Path:
    """Return `reference(**changes)` as a Hugging Face folder with the tiny model's tokenizer."""
    path = Path(tempfile.mkdtemp(prefix="minillm-draft-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    reference(**changes).save_pretrained(path)
    tiny.save_tokenizer(path)
    return path


def draft(noise: float = 0.0, draft_sample_method: str = "greedy", **changes: Any) -> dict[str, object]:
    """Return a `speculative_config` with `reference(noise, **changes)` as the draft model."""
    path = folder(noise=noise, **changes)
    return {
        "method": "draft_model",
        "model": str(path),
        "num_speculative_tokens": NUM_DRAFTS,
        "draft_sample_method": draft_sample_method,
    }


def configs() -> dict[str, dict[str, object]]:
    """Return a configuration for each proposer of certain drafts, from those that guess well to those that do not."""
    tokens = {"num_speculative_tokens": NUM_DRAFTS}
    return {
        "ngram": tokens | {"method": "ngram", "prompt_lookup_min": 1, "prompt_lookup_max": 3},
        "suffix": tokens | {"method": "suffix"},
        "draft model": draft(0.03),
    }


def llm(name: str, **changes: object) -> LLM:
    """Return an engine over the tiny model with the proposer `name`."""
    return tiny.llm(speculative_config=configs()[name], **changes)


def fresh_run(model: Transformer, token_ids: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Return K and V [T, H_kv, D] of each layer, and the logits [T, V], of one run over all tokens."""
    cache = KVCache(model.config, 1, len(token_ids))
    with torch.inference_mode():
        hidden = model(Batch.of([Chunk(list(token_ids), 0, [0])], len(token_ids)), cache)
        logits = model.logits(hidden)
    return [tensor[0] for kv in cache.layers for tensor in (kv.k, kv.v)], logits

"""Operations counted from a config against PyTorch's own counter; bytes against the model's tensors."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from minillm.config import ModelConfig, RopeConfig
from minillm.measure.costs import decode_cost, prefill_cost, step_cost, visible_pairs

# Odd numbers throughout, so that no two products are equal by accident.
LLAMA = ModelConfig(
    family="llama",
    vocab_size=101,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    rope=RopeConfig(),
)
QWEN3 = ModelConfig(
    family="qwen3",
    vocab_size=101,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    rope=RopeConfig(),
    qk_norm=True,
    tie_word_embeddings=True,
)
GPT2 = ModelConfig(
    family="gpt2",
    vocab_size=101,
    hidden_size=48,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=12,
    max_position_embeddings=64,
    rope=None,
    norm="layer_norm",
    activation="gelu_tanh",
    gated_mlp=False,
    qkv_bias=True,
    o_bias=True,
    mlp_bias=True,
    tie_word_embeddings=True,
)


def build(config: ModelConfig) -> PreTrainedModel:
    """The same shape in transformers, attention written out so that every product is an mm or a bmm."""
    if config.family == "gpt2":
        gpt2 = GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_position_embeddings,
            n_embd=config.hidden_size,
            n_layer=config.num_hidden_layers,
            n_head=config.num_attention_heads,
            attn_implementation="eager",
        )
        return GPT2LMHeadModel(gpt2).eval()
    classes = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
    config_class, model_class = classes[config.family]
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
        "head_dim max_position_embeddings tie_word_embeddings"
    )
    same = {name: getattr(config, name) for name in names.split()}
    return model_class(config_class(**same, attn_implementation="eager")).eval()


@torch.no_grad()
def counted_flops(config: ModelConfig, num_tokens: int, context: int, batch: int) -> int:
    """Return the FLOP that PyTorch counts for `num_tokens` tokens of transformers after `context` cached ones."""
    model = build(config)
    cache = None
    if context:
        cache = model(torch.zeros(batch, context, dtype=torch.long), use_cache=True).past_key_values
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(batch, num_tokens, dtype=torch.long), past_key_values=cache, logits_to_keep=1)
    # Some versions of transformers make RoPE's angles, position times frequency, by a matmul. We do not count them.
    modules = counter.get_flop_counts()
    angles = sum(sum(ops.values()) for name, ops in modules.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - angles


def masked_flops(config: ModelConfig, num_tokens: int, batch: int) -> int:
    """Return the FLOP of masked pairs in written-out attention: for query i, the n - 1 - i tokens after it."""
    masked_pairs = batch * num_tokens * (num_tokens - 1) // 2
    return 4 * config.q_size * config.num_hidden_layers * masked_pairs


@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2], ids=lambda config: config.family)
@pytest.mark.parametrize(("num_tokens", "context", "batch"), [(13, 0, 1), (1, 17, 1), (1, 17, 3), (5, 9, 2)])
def test_flops_agree_with_pytorch_to_the_last_one(
    config: ModelConfig, num_tokens: int, context: int, batch: int
) -> None:
    ours = prefill_cost(config, num_tokens, context, batch).flops
    counted = counted_flops(config, num_tokens, context, batch)
    assert counted == ours + masked_flops(config, num_tokens, batch)


@pytest.mark.parametrize("config", [LLAMA, QWEN3, GPT2], ids=lambda config: config.family)
def test_weight_bytes_are_those_of_the_tensors_a_step_touches(config: ModelConfig) -> None:
    model = build(config)
    embeddings = {"model.embed_tokens.weight", "transformer.wte.weight", "transformer.wpe.weight"}
    whole = sum(p.numel() for name, p in model.named_parameters() if name not in embeddings)
    if config.tie_word_embeddings:  # named_parameters lists the shared tensor once, as the embedding
        whole += model.get_output_embeddings().weight.numel()
    tokens = 3
    rows = tokens * config.hidden_size * (2 if config.rope is None else 1)
    cost = prefill_cost(config, tokens, bytes_per_weight=4)
    assert cost.weight_bytes == 4 * (whole + rows)


def test_a_step_without_logits_leaves_the_head_alone() -> None:
    head = LLAMA.vocab_size * LLAMA.hidden_size
    chunk = step_cost(LLAMA, [8], [0], num_logits=0)
    whole = step_cost(LLAMA, [8], [0], num_logits=8)
    assert whole.linear_flops - chunk.linear_flops == 8 * 2 * head
    assert whole.weight_bytes - chunk.weight_bytes == 2 * head


def test_a_ragged_step_costs_its_parts_but_reads_the_weights_once() -> None:
    parts = [prefill_cost(LLAMA, 5), decode_cost(LLAMA, 30), decode_cost(LLAMA, 7)]
    whole = step_cost(LLAMA, [5, 1, 1], [0, 30, 7])
    for name in ("linear_flops", "attention_flops", "kv_read_bytes", "kv_write_bytes"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)
    assert whole.weight_bytes < 1.1 * parts[0].weight_bytes


def test_chunks_compute_the_same_pairs_as_the_whole_and_read_the_context_again() -> None:
    whole = step_cost(LLAMA, [12], [0], num_logits=0)
    chunks = [step_cost(LLAMA, [4], [context], num_logits=0) for context in (0, 4, 8)]
    assert sum(chunk.flops for chunk in chunks) == whole.flops
    assert sum(chunk.kv_write_bytes for chunk in chunks) == whole.kv_write_bytes
    per_token = LLAMA.kv_bytes_per_token()
    assert [chunk.kv_read_bytes for chunk in chunks] == [4 * per_token, 8 * per_token, 12 * per_token]


@pytest.mark.parametrize("window", [None, 1, 3, 10])
def test_visible_pairs_in_closed_form_equal_a_count_of_the_mask(window: int | None) -> None:
    for num_queries, context in itertools.product((1, 2, 5, 9), (0, 1, 4, 20)):
        queries = torch.arange(context, context + num_queries)[:, None]
        keys = torch.arange(context + num_queries)[None, :]
        mask = (keys <= queries) & (keys > queries - (window or 1000))
        assert visible_pairs(num_queries, context, window) == int(mask.sum())
        config = replace_windows(window)
        entries = int(mask.any(dim=0).sum())
        read = step_cost(config, [num_queries], [context]).kv_read_bytes
        assert read == entries * config.kv_bytes_per_token()


def test_layers_with_and_without_a_window_are_counted_apart() -> None:
    mixed = replace_windows(2, 3, None)
    apart = [step_cost(replace_windows(window), [1], [30]) for window in (2, 3, None)]
    cost = step_cost(mixed, [1], [30])
    assert 3 * cost.attention_flops == sum(part.attention_flops for part in apart)
    assert 3 * cost.kv_read_bytes == sum(part.kv_read_bytes for part in apart)


def replace_windows(*windows: int | None) -> ModelConfig:
    """LLAMA with these windows; one stands for all three layers."""
    return replace(LLAMA, sliding_windows=windows * 3 if len(windows) == 1 else windows)


def test_bytes_per_weight_and_per_kv_may_be_fractions() -> None:
    full = decode_cost(LLAMA, 10)
    small = decode_cost(LLAMA, 10, bytes_per_weight=0.5, bytes_per_kv=1)
    assert small.weight_bytes == full.weight_bytes / 4
    assert small.kv_read_bytes == full.kv_read_bytes / 2
    assert small.flops == full.flops


@pytest.mark.parametrize(
    ("query_lens", "context_lens", "num_logits", "complaint"),
    [
        ([1, 2], [0], None, "one of each per request"),
        ([], [], None, "one of each per request"),
        ([0], [4], None, "must be >= 1"),
        ([1], [-1], None, ">= 0"),
        ([3], [0], 4, "num_logits=4"),
    ],
)
def test_a_step_that_cannot_be_is_refused(query_lens, context_lens, num_logits, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        step_cost(LLAMA, query_lens, context_lens, num_logits=num_logits)

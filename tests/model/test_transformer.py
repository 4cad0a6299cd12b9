"""A model with other parts, its hidden states between layers, and its RoPE tables."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minillm import LLM, SamplingParams
from minillm.batch import Batch, Chunk
from minillm.model.checkpoint import load_model
from minillm.model.mlp import DenseMlp
from minillm.model.transformer import Transformer
from minillm.ops import Ops
from tests.model.zoo import CONTEXT, ZOO, Sample, sample, tokens

PROMPT = tokens(5)
CHUNKS = [Chunk(PROMPT, 0, [0]), Chunk([9], 0, [1]), Chunk(tokens(12, seed=1), 0, [2])]


def logits(model: Transformer, name: str) -> torch.Tensor:
    return model.logits(model(Batch.of(CHUNKS, CONTEXT), sample(name).no_cache()))


# ---- other parts


@pytest.mark.parametrize(
    ("name", "of_layer_2"),
    [
        (
            "biases",
            {
                "model.layers.2.self_attn.qkv",
                "model.layers.2.self_attn.o_proj",
                "model.layers.2.mlp.gate_up",
                "model.layers.2.mlp.down_proj",
            },
        ),
        (
            "gpt2",
            {
                "transformer.h.2.attn.c_attn",
                "transformer.h.2.attn.c_proj",
                "transformer.h.2.mlp.c_fc",
                "transformer.h.2.mlp.c_proj",
            },
        ),
    ],
)
def test_projections_are_replaced_by_name_in_a_model_of_their_own(name, of_layer_2):
    model = sample(name).model
    before, seen, calls = logits(model, name), {}, []

    def noted(name, projection):
        seen[name] = projection

        def recorder(x, ops):
            calls.append(name)
            return projection(x, ops)

        return recorder

    same = model.with_projections(noted)
    assert {n for n in seen if ".2." in n} == of_layer_2
    assert len(seen) == 4 * model.config.num_hidden_layers + 1 and "lm_head" in seen
    assert seen["lm_head"] is model.weights.lm_head
    torch.testing.assert_close(logits(same, name), before)
    assert sorted(calls) == sorted(seen)
    silent = model.with_projections(lambda name, projection: lambda x, ops: 0 * projection(x, ops))
    assert not logits(silent, name).any()
    torch.testing.assert_close(logits(model, name), before)


def test_only_the_named_projection_changes():
    model = sample("llama").model
    skipped = model.with_projections(
        lambda name, p: (lambda x, ops: 0 * p(x, ops)) if name == "model.layers.1.mlp.down_proj" else p
    )
    by_block = model.with_blocks(lambda i, b: replace(b, mlp=lambda x, ops: 0 * x) if i == 1 else b)
    assert not torch.allclose(logits(model, "llama"), logits(skipped, "llama"))
    torch.testing.assert_close(logits(skipped, "llama"), logits(by_block, "llama"))


def test_a_scale_moves_from_a_matrix_to_the_norm_before_it():
    model = sample("llama").model

    def folded(layer, block):
        def half(x, ops):
            return block.qkv(x / 2, ops)

        return replace(
            block,
            attention_norm=replace(block.attention_norm, weight=2 * block.attention_norm.weight),
            qkv=half,
        )

    torch.testing.assert_close(logits(model.with_blocks(folded), "llama"), logits(model, "llama"))
    assert model.with_blocks(lambda i, b: b).weights.blocks[0] is model.weights.blocks[0]


@pytest.mark.parametrize("name", ["biases", "gpt2", "tied"])
def test_every_product_with_a_weight_is_the_operation_linear(name):
    model, calls = sample(name).model, []

    def spy(x, weight, bias):
        calls.append(weight)
        return Ops().linear(x, weight, bias)

    logits(model.with_ops(Ops(linear=spy)), name)
    seen = []
    model.with_projections(lambda name, p: seen.append(p.weight) or p)
    assert {w.data_ptr() for w in calls} == {w.data_ptr() for w in seen} and len(calls) == len(seen)


def test_a_dense_mlp_is_gated_without_an_activation():
    x, up, down = torch.randn(3, 4), torch.randn(4, 6), torch.randn(3, 4)

    def mlp(activation):
        return DenseMlp(
            lambda x, ops: x @ up,
            lambda x, ops: x @ (down if x.shape[1] == 3 else down.repeat(2, 1)),
            activation,
        )

    gate, value = (x @ up).chunk(2, 1)
    torch.testing.assert_close(mlp(None)(x, Ops()), (gate * gate.sigmoid() * value) @ down)
    torch.testing.assert_close(mlp(torch.relu)(x, Ops()), (x @ up).relu() @ down.repeat(2, 1))


# ---- hidden states


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "mistral-window"])
def test_taps_are_the_hidden_states_of_transformers(name):
    """Its `output_hidden_states` begins with the embedding and norms the last layer's; a hook has that one before."""
    model, prompt = sample(name), tokens(20)
    raw = []
    layers = getattr(model.reference.base_model, "layers", None) or model.reference.base_model.h
    hook = layers[-1].register_forward_hook(
        lambda module, args, out: raw.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.no_grad():
        states = model.reference(torch.tensor([prompt]), output_hidden_states=True).hidden_states
    hook.remove()
    expected = [states[1], states[2], raw[0], states[3]]
    cache, got = model.kv_cache(1), []
    for begin, end in ((0, 13), (13, 20)):
        batch = Batch.of([Chunk(prompt[begin:end], begin, [0])], cache.block_size)
        hidden = model.model.hidden_states(batch, cache, taps=(2, 0, 1))
        got.append((hidden.taps[1], hidden.taps[2], hidden.taps[0], hidden.last))
    for parts, right in zip(zip(*got, strict=True), expected, strict=True):
        torch.testing.assert_close(torch.cat(parts), right.view(20, -1), atol=1e-4, rtol=1e-4)


def test_without_taps_only_the_last_hidden_states_are_kept():
    model, batch, cache = sample("llama").model, Batch.of(CHUNKS, CONTEXT), sample("llama").no_cache()
    hidden = model.hidden_states(batch, cache)
    assert hidden.taps == () and torch.equal(hidden.last, model(batch, cache))


@pytest.mark.parametrize("taps", [[3], [0, -1]])
def test_a_tap_of_no_layer_is_refused(taps):
    batch, cache = Batch.of(CHUNKS, CONTEXT), sample("llama").no_cache()
    with pytest.raises(ValueError, match=rf"layers 0 to 2 and no layer {taps[-1]}$"):
        sample("llama").model.hidden_states(batch, cache, taps)


# ---- RoPE tables


def claiming(num_positions: int, name: str = "llama") -> Sample:
    """The model loaded as if its config.json allowed so many positions."""
    one = sample(name)
    config = replace(one.config, max_position_embeddings=num_positions)
    return Sample(one.folder, one.reference, config, load_model(one.folder, config))


def test_the_tables_are_as_long_as_the_longest_sequence_computed():
    model = claiming(2**40)
    assert len(model.model.cos) == 0
    prompt, cache = tokens(40), model.no_cache()
    for length in (3, 40, 17):
        error = (model.run([Chunk(prompt[:length], 0, [0])], cache) - model.expected(prompt[:length])).abs()
        assert error.max() <= 1e-4
    assert len(model.model.cos) == len(model.model.sin) == 40
    model.run([Chunk(tokens(41), 0, [0]), Chunk([3], 0, [1])], cache)
    assert len(model.model.cos) == 80  # at least twice as long, so that decoding rarely makes new ones


def test_an_engine_of_a_model_that_claims_billions_of_positions(tmp_path):
    folder = Path(shutil.copytree(sample("llama").folder, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2**31 - 1}
    (folder / "config.json").write_text(json.dumps(config))
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    for limits in ({"max_model_len": 64}, {"kv_cache": "none"}, {"num_gpu_blocks_override": 4}):
        llm = LLM(folder, **limits)
        assert llm.generate([PROMPT], params)[0].outputs[0].token_ids == sample("llama").expected_greedy(
            PROMPT, 3
        )
        assert len(llm.engine.runner.model.cos) < 16
    with pytest.raises(
        ValueError, match=f"max_model_len={2**31 - 1} tokens takes .* set a smaller max_model_len"
    ):
        LLM(folder)


def test_tables_for_a_context_stay_where_they_are():
    model = claiming(2**40)
    recorded = model.model.with_context(100)
    assert len(recorded.cos) == 100 and len(model.model.cos) == 0
    address = recorded.cos.data_ptr()
    for length in (1, 60, 100):
        recorded(Batch.of([Chunk([1] * length, 0, [0])], CONTEXT), model.no_cache())
    assert recorded.cos.data_ptr() == address and len(recorded.cos) == 100
    longer = recorded.with_context(120)
    assert recorded.cos.data_ptr() == address and len(longer.cos) == 120


def test_no_table_is_longer_than_the_model_allows():
    model = claiming(30)
    model.run([Chunk(tokens(20), 0, [0])], model.no_cache())
    model.run([Chunk(tokens(30), 0, [0])], model.no_cache())
    assert len(model.model.cos) == 30
    with pytest.raises(ValueError, match=r"31 tokens exceeds .* max_position_embeddings=30"):
        model.run([Chunk(tokens(31), 0, [0])], model.no_cache())
    with pytest.raises(ValueError, match=r"31 tokens exceeds .* max_position_embeddings=30"):
        model.model.with_context(31)


@pytest.mark.parametrize("name", [n for n in ZOO if n.endswith("rope")])
def test_the_length_of_a_table_changes_no_row(name):
    model = sample(name).model
    short, long = model.with_context(7), model.with_context(CONTEXT)
    assert len(short.cos) == 7 and len(long.cos) == CONTEXT
    assert torch.equal(short.cos, long.cos[:7]) and torch.equal(short.sin, long.sin[:7])


@pytest.mark.parametrize("name", ["tied", "qwen3-bias", "gpt2"])
def test_the_bytes_of_the_weights_count_shared_memory_once(name):
    model = sample(name).model
    assert model.nbytes == 4 * sample(name).config.num_parameters
    assert model.with_projections(lambda name, projection: projection).nbytes == model.nbytes

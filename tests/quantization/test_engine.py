"""Quantised weights and caches in the engine: however the work is shared, the tokens are those of a lone run.

Products in other orders round differently, so these runs are pinned to the definitions (`MINILLM_LINEAR=reference`).
Runs that are not pinned may choose another token only where two are almost equally likely.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import minillm
from minillm import LLM, SamplingParams, ops
from minillm.batch import Batch, Chunk
from minillm.cache.kv_cache import NoCache
from minillm.cpu.int4pack import BlockedWeight, layout
from minillm.cpu.quantized import PRODUCTS, ROWS, MeasuredMatmul
from minillm.measure.trace import LinearChoice, StepRecord, Trace
from minillm.player.recording import Recording
from minillm.quantization.linear import Joined, QuantizedLinear, with_weights
from minillm.quantization.schemes import ON_THE_FLY
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

SCHEMES = [*ON_THE_FLY]
KV_DTYPES = ["int8", "fp8"]
GATE = 0.2  # of a logprob: a token that is not the most likely one may be so much less likely
# The longest prompt is 40 tokens and grows by 16: two such requests do not fit.
SMALL_POOL = {"num_gpu_blocks_override": 9, "block_size": 8}
WAYS = {
    "together": {},
    "chunks": {"max_num_batched_tokens": 7},
    "one token a step": {"max_num_batched_tokens": 1},
    "few blocks": SMALL_POOL,
    "few blocks, chunks": SMALL_POOL | {"max_num_batched_tokens": 7},
    "no prefix caching": {"enable_prefix_caching": False},
    "contiguous": {"kv_cache": "contiguous"},
}
FORKS = {"n": 2, "temperature": 0.2, "max_tokens": 10}
every_way = pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS.keys())


def load(pinned: bool, folder: Path | None = None, **changes: object) -> LLM:
    """A model with operations for `pinned`; engines made of its weights keep them.

    W8A8 rounds activations to integers, so the last bit of a float may decide a whole step. Attention that reads
    several requests in one call differs in that bit, so W8A8 is pinned to the definition of attention too.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_LINEAR", "reference" if pinned else "")
        patch.setenv(
            "MINILLM_KERNELS", "off" if pinned and changes.get("quantization") in ("w8a8", "fp8") else ""
        )
        return LLM(folder or tiny.folder(), max_num_seqs=4, **changes)


@cache
def shared(pinned: bool, quantization: str | None = None) -> LLM:
    return load(pinned, quantization=quantization)


def params(i: int = 0, **changes: object) -> SamplingParams:
    return SamplingParams(
        **({"temperature": i % 2, "seed": i, "max_tokens": 16, "ignore_eos": True} | changes)
    )


def one_by_one(llm: LLM, prompts=PROMPTS, **changes: object) -> list[list[list[int]]]:
    return [
        tiny.tokens(llm.generate([list(prompt)], params(i, **changes)))[0] for i, prompt in enumerate(prompts)
    ]


def together(llm: LLM, prompts=PROMPTS, **changes: object) -> list[list[list[int]]]:
    all_params = [params(i, **changes) for i in range(len(prompts))]
    found = tiny.tokens(llm.generate([list(prompt) for prompt in prompts], all_params))
    tiny.assert_idle(llm)
    return found


@cache
def plainly(
    quantization: str | None, kv_cache_dtype: str = "auto", **changes: object
) -> list[list[list[int]]]:
    llm = shared(True, quantization).variant(enable_prefix_caching=False, kv_cache_dtype=kv_cache_dtype)
    return one_by_one(llm, **changes)


@every_way
@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantised_weights_give_the_tokens_of_a_lone_run(scheme, changes):
    llm = shared(True, scheme).variant(trace=True, **changes)
    assert together(llm) == plainly(scheme)
    if "num_gpu_blocks_override" in changes:
        assert any(step.preempted for step in llm.trace.of(StepRecord))
    if changes.get("enable_prefix_caching", True) and changes.get("kv_cache") is None:
        assert together(llm) == plainly(scheme)
        hits = [part.num_cached_tokens for step in llm.trace.of(StepRecord) for part in step.scheduled]
        assert max(hits) > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_forks_of_a_quantised_model(scheme):
    llm = shared(True, scheme).variant(block_size=4, trace=True)
    assert together(llm, **FORKS) == plainly(scheme, **FORKS)
    assert any(step.copied for step in llm.trace.of(StepRecord))


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("kv_cache_dtype", KV_DTYPES)
def test_a_quantised_cache_gives_the_tokens_of_a_lone_run(kv_cache_dtype, changes):
    llm = shared(True).variant(kv_cache_dtype=kv_cache_dtype, **changes)
    assert together(llm) == plainly(None, kv_cache_dtype)
    assert together(llm) == plainly(None, kv_cache_dtype), "with prefix hits"


@pytest.mark.parametrize("kv_cache_dtype", KV_DTYPES)
def test_forks_in_a_quantised_cache(kv_cache_dtype):
    llm = shared(True).variant(kv_cache_dtype=kv_cache_dtype, block_size=4, trace=True)
    assert together(llm, **FORKS) == plainly(None, kv_cache_dtype, **FORKS)
    assert any(step.copied for step in llm.trace.of(StepRecord))


def logprobs(llm: LLM, ids: list[int]) -> torch.Tensor:
    """[len(ids), vocab] of the model by the definitions, without a cache."""
    model = llm.model.with_ops(ops.Ops())
    hidden = model(Batch.of([Chunk(ids, 0, [0])], 512), NoCache(model.config, 512))
    return model.logits(hidden).log_softmax(-1)


def assert_within_gate(llm: LLM, prompt: list[int], tokens: list[int], gate: float = GATE) -> None:
    """Each token is the most likely one of the definitions, or almost."""
    rows = logprobs(llm, [*prompt, *tokens])[len(prompt) - 1 : -1]
    chosen = rows.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert (rows.amax(-1) - chosen).max() <= gate


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tokens_of_the_fastest_products_are_within_the_gate(scheme, changes):
    llm = shared(False, scheme).variant(**changes)
    found = together(llm, temperature=0)
    for prompt, [tokens] in zip(PROMPTS, found, strict=True):
        assert_within_gate(llm, list(prompt), tokens)


@pytest.mark.parametrize("kv_cache_dtype", KV_DTYPES)
@pytest.mark.parametrize("scheme", [None, "int4"])
def test_tokens_of_a_quantised_cache_are_within_the_gate_of_the_float_cache(kv_cache_dtype, scheme):
    llm = LLM("tinytales", quantization=scheme, kv_cache_dtype=kv_cache_dtype, max_num_seqs=4)
    prompts = [llm.tokenizer.encode(text) for text in ("Once upon a time", "The dog was", "Lily went to the")]
    found = together(llm, prompts, temperature=0)
    for prompt, [tokens] in zip(prompts, found, strict=True):
        assert_within_gate(llm, prompt, tokens)


@pytest.mark.parametrize("kv_cache", ["paged", "contiguous"])
@pytest.mark.parametrize("kv_cache_dtype", KV_DTYPES)
def test_a_quantised_cache_takes_half_the_bytes_of_bfloat16(kv_cache, kv_cache_dtype):
    llm = shared(True).variant(kv_cache=kv_cache, kv_cache_dtype=kv_cache_dtype)
    config, stored = llm.model.config, llm.engine.runner.cache
    num_tokens = stored.num_blocks * stored.block_size
    assert stored.nbytes == sum(tensor.nbytes for tensor in tiny.cache_tensors(llm))
    assert stored.nbytes == num_tokens * config.kv_bytes_per_token(1, 4)
    scales = 2 * 2 * 2 * 4  # K and V of 2 layers and 2 heads, 4 bytes each
    assert stored.nbytes == num_tokens * (config.kv_bytes_per_token(2) // 2 + scales)


def weights(llm: LLM) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    llm.engine.runner.model.with_projections(
        lambda name, p: with_weights(p, lambda kind, weight: found.append((kind, weight)) or weight)
    )
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_take_a_half_or_a_quarter_of_16_bits(scheme):
    dense, llm = shared(True), shared(False, scheme)
    in_float32 = []
    dense.model.with_projections(lambda name, p: name == "lm_head" or in_float32.append(p.weight.nbytes) or p)
    bytes_now = sum(weight.nbytes for _, weight in weights(llm))
    numbers = sum(in_float32) // 4
    bits = 8 * bytes_now / numbers
    # The tiny model's rows have 32 numbers: a float32 scale per row is one bit more, or 2 with those of the product.
    assert (4 < bits <= 6) if scheme == "int4" else (8 < bits <= 9)


def test_one_weight_is_kept_once():
    """The order of the product replaces the usual one, which is made only when it is asked for."""
    if layout() is None:
        pytest.skip("this PyTorch has no 4-bit product for this processor")
    for kind, weight in weights(shared(False, "int4")):
        assert kind == "int4" and isinstance(weight, BlockedWeight)
        assert weight.numbers.data_ptr() != weight.blocked.data_ptr()
        assert not isinstance(vars(weight).get("numbers"), torch.Tensor)
    assert not any(isinstance(weight, BlockedWeight) for _, weight in weights(shared(True, "int4")))


def test_a_swapped_product_gets_the_usual_numbers():
    seen = []

    def mine(x, weight, bias):
        seen.append(weight.numbers.shape == (weight.shape[0], weight.shape[1] // 2))
        low, high = weight.numbers & 15, weight.numbers >> 4
        q = torch.stack((low, high), -1).flatten(1).float().unflatten(1, (weight.scale.shape[1], -1)) - 8
        y = x @ (q * weight.scale[..., None]).flatten(1).t()
        return y if bias is None else y + bias

    with minillm.swap(int4_matmul=mine):
        llm = shared(False, "int4").variant()
    assert together(llm) == plainly("int4") and seen and all(seen)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("hidden", "middle"), [(33, 100), (40, 33), (100, 40)])
def test_models_of_sizes_that_crash_int8pack(scheme, hidden, middle, tmp_path):
    if scheme == "int4" and 33 in (hidden, middle):
        pytest.skip("33 numbers of 4 bits do not fill bytes")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=hidden,
        intermediate_size=middle,
        num_hidden_layers=2,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=20,
        max_position_embeddings=64,
        initializer_range=0.3,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    prompts = [[i % 60 + 1 for i in range(start, start + n)] for start, n in ((3, 5), (11, 1), (20, 30))]
    llm = load(False, tmp_path, quantization=scheme)
    for prompt, [tokens] in zip(prompts, together(llm, prompts, temperature=0), strict=True):
        assert len(tokens) == 16
        assert_within_gate(llm, prompt, tokens)


def test_the_variable_pins_the_definitions(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.delenv("MINILLM_LINEAR", raising=False)
    names = ["linear", *(f"{kind}_matmul" for kind in PRODUCTS)]
    found = ops.ops_for(cpu)
    assert all(isinstance(getattr(found, name), MeasuredMatmul) for name in names[1:])
    monkeypatch.setenv("MINILLM_LINEAR", "reference")
    pinned = ops.ops_for(cpu)
    assert all(getattr(pinned, name) is getattr(ops, name) for name in names)
    assert pinned.paged_attention is found.paged_attention
    monkeypatch.setenv("MINILLM_LINEAR", "fast")
    with pytest.raises(ValueError, match="MINILLM_LINEAR='fast': 'reference' or nothing"):
        ops.ops_for(cpu)


def test_off_means_the_definitions(monkeypatch):
    monkeypatch.setenv("MINILLM_KERNELS", "off")
    assert ops.ops_for(torch.device("cpu")) == ops.Ops()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_choice_is_in_the_trace_before_any_step(scheme, tmp_path):
    llm = shared(False, scheme).variant(trace=True)
    choices = llm.trace.of(LinearChoice)
    assert llm.trace == choices, "the measurement is over when the engine is built"
    kind = ON_THE_FLY[scheme]
    sizes = {(32, 32), (64, 32), (128, 32), (32, 64)}  # o, qkv, gate_up, down
    assert {(c.scheme, c.size_out, c.size_in, c.rows) for c in choices} == {
        (kind, *size, rows) for size in sizes for rows in ROWS
    }
    assert {c.op for c in choices} <= {product.name for product in PRODUCTS[kind]}
    together(llm)
    assert llm.trace.of(LinearChoice) == choices
    path = tmp_path / "trace.jsonl"
    llm.trace.save(path)
    assert Trace.load(path) == llm.trace
    assert json.loads(path.read_text().splitlines()[0])["kind"] == "LinearChoice"
    assert llm.trace.for_request("0") and not any(
        isinstance(record, LinearChoice) for record in llm.trace.for_request("0")
    )
    settings = {"block_size": 16}
    events = Recording(llm.trace, settings).extend()["events"]
    assert len(events) == len(llm.trace) - len(choices) and events[0][0] == "add"


def test_no_choice_for_a_dense_or_a_pinned_model():
    assert shared(False).variant(trace=True).trace == []
    assert shared(True, "int8").variant(trace=True).trace == []


def test_joined_parts_are_prepared_and_measured():
    found = weights(shared(False, "int8"))
    parts = [QuantizedLinear(weight, None, kind) for kind, weight in found[:2]]
    seen: list[object] = []
    changed = with_weights(Joined([*parts]), lambda kind, weight: seen.append(weight) or found[2][1])
    assert [id(weight) for weight in seen] == [id(weight) for _, weight in found[:2]]
    assert isinstance(changed, Joined) and all(part.weight is found[2][1] for part in changed.parts)


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    shared.cache_clear()
    plainly.cache_clear()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_models_bytes_are_those_of_its_tensors_in_memory(scheme):
    """Weights in the order of a CPU's products make others on demand; these take no memory."""
    llm = load(False, quantization=scheme)
    weights = []
    llm.model.with_projections(
        lambda name, p: with_weights(p, lambda kind, weight: weights.append(weight) or weight)
    )
    kept = llm.model.nbytes - sum(weight.nbytes for weight in weights)
    config = llm.model.config
    embeddings = (1 if config.tie_word_embeddings else 2) * 4 * config.vocab_size * config.hidden_size
    norms = 4 * config.hidden_size * (2 * config.num_hidden_layers + 1)
    assert kept == embeddings + norms and llm.model.nbytes == llm.model.nbytes

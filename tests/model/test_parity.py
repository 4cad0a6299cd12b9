"""Every family against `transformers`: logits within 1e-4, the same greedy tokens, however the work is cut."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.batch import Chunk
from minillm.cache.kv_cache import KVCache, NoCache
from minillm.model.checkpoint import load_model
from minillm.model.families import read_config
from tests.model.zoo import CONTEXT, ZOO, Sample, greedy, naive_greedy, sample, temporary_folder, tokens

TOLERANCE = 1e-4  # max abs error of fp32 logits
LENGTHS = (40, 1, 9)
PROMPTS = [tokens(n, seed=n) for n in LENGTHS]
every_model = pytest.mark.parametrize("name", ZOO)


def quick_for(*names: str) -> pytest.MarkDecorator:
    """Run for every model in `make test`, and for these in `make check`."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=[] if name in names else pytest.mark.slow) for name in ZOO]
    )


def error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape and actual.dtype == torch.float32
    return (actual - expected).abs().max().item()


@every_model
def test_the_config_counts_the_parameters_that_there_are(name):
    parameters = sample(name).reference.parameters()
    assert sample(name).config.num_parameters == sum(p.numel() for p in parameters)


@every_model
@pytest.mark.parametrize("cached", [True, False])
def test_the_logits_of_a_ragged_batch_of_prompts(name, cached):
    model = sample(name)
    cache = model.kv_cache() if cached else model.no_cache()
    logits = model.run([Chunk(p, 0, [row]) for p, row in zip(PROMPTS, (2, 0, 3), strict=True)], cache)
    for part, prompt in zip(logits.split(LENGTHS), PROMPTS, strict=True):
        assert error(part, model.expected(prompt)) <= TOLERANCE


@every_model
@settings(max_examples=6)
@given(
    cuts=st.lists(st.sets(st.integers(1, 39)).map(sorted), min_size=2, max_size=2),
    order=st.permutations(range(3)),
)
def test_any_split_of_the_prompts_gives_the_same_logits(name, cuts, order):
    """Two prompts go through the cache side by side, each in chunks of its own, in rows in any order."""
    model, cache = sample(name), sample(name).kv_cache(3)
    prompts = [tokens(40, seed=s) for s in (1, 2)]
    pieces = [list(zip([0, *c], [*c, 40], strict=True)) for c in cuts]
    logits: list[list[torch.Tensor]] = [[], []]
    for step in range(max(map(len, pieces))):
        busy = [r for r in (0, 1) if step < len(pieces[r])]
        spans = [pieces[r][step] for r in busy]
        chunks = [Chunk(prompts[r][i:j], i, [order[r]]) for r, (i, j) in zip(busy, spans, strict=True)]
        out = model.run(chunks, cache).split([j - i for i, j in spans])
        for r, part in zip(busy, out, strict=True):
            logits[r].append(part)
    for r in (0, 1):
        assert error(torch.cat(logits[r]), model.expected(prompts[r])) <= TOLERANCE


@quick_for("llama", "gqa-4")
def test_64_greedy_tokens_alone_and_in_a_batch(name):
    model = sample(name)
    expected = [model.expected_greedy(p, 64) for p in PROMPTS]
    assert (
        len(set(map(tuple, expected))) == 3 and len(set().union(*expected)) > 6
    )  # or little would be compared
    assert greedy(model, PROMPTS[:1], [0], 64) == expected[:1]
    assert greedy(model, PROMPTS, (1, 2, 3), 64) == expected  # rows side by side decode in one call
    assert greedy(model, PROMPTS, (2, 0, 3), 64) == expected
    assert naive_greedy(model, PROMPTS, 64) == expected


@every_model
@pytest.mark.parametrize(("dtype", "gate"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)])
def test_half_precision_stays_close_by_norm(name, dtype, gate):
    exact = sample(name)
    half = Sample(
        exact.folder, exact.reference, exact.config, load_model(exact.folder, exact.config, dtype=dtype)
    )
    assert half.model.dtype == dtype
    logits = half.run([Chunk(PROMPTS[0], 0, [0])], half.kv_cache())
    expected = exact.expected(PROMPTS[0])
    assert logits.isfinite().all()
    assert ((logits - expected).norm() / expected.norm()).item() <= gate


@pytest.mark.slow
def test_qwen3_0_6b_at_its_real_shape():
    """https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json with random weights, saved in bfloat16."""
    config = transformers.Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        bos_token_id=151_643,
        eos_token_id=151_645,
        dtype="bfloat16",
    )
    with torch.device("meta"):
        reference = transformers.Qwen3ForCausalLM(config).to(torch.bfloat16)
    reference = reference.to_empty(device="cpu").eval()
    reference.model.rotary_emb = type(reference.model.rotary_emb)(config)  # its buffers are not parameters
    torch.manual_seed(0)
    for parameter in reference.parameters():
        parameter.data.uniform_(-0.06, 0.06) if parameter.ndim > 1 else parameter.data.uniform_(0.9, 1.1)
    reference.tie_weights()
    folder = temporary_folder()
    reference.save_pretrained(folder)
    ours = read_config(folder)
    assert ours.num_parameters == 596_049_920
    model = Sample(folder, reference.float(), ours, load_model(folder, ours))
    prompt = tokens(24)
    expected, cache = model.expected(prompt), KVCache(ours, 1, CONTEXT)
    pieces = [model.run([Chunk(prompt[i:j], i, [0])], cache) for i, j in ((0, 17), (17, 23), (23, 24))]
    assert error(torch.cat(pieces), expected) <= TOLERANCE
    assert error(model.run([Chunk(prompt, 0, [0])], NoCache(ours, CONTEXT)), expected) <= TOLERANCE

"""The draft model: in every way of serving, its cache is that of a fresh run, and its drafts are what it would write.

And with sampled drafts, the tokens of the whole engine have the law of the model alone.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from minillm import LLM, SamplingParams
from minillm.errors import CheckpointError
from minillm.measure.trace import StepRecord, TokenRecord
from minillm.quantization.export import export
from minillm.sampling import SamplingRow, probabilities, process_logits
from tests.engine import tiny
from tests.engine.tiny import PROMPTS
from tests.sampling.test_verify import LOWEST_P, ChiSquare
from tests.speculative import pairs
from tests.speculative.pairs import NUM_DRAFTS
from tests.speculative.test_equality import KINDS, WAYS, requests, run


def assert_draft_cache_is_right(llm):
    """Assert that the draft cache of each running request equals a fresh run of the draft model."""
    proposer = llm.engine.proposer
    model, cache = proposer.runner.model, proposer.cache
    for request in llm.engine.scheduler.running:
        known = request.num_tokens - 1 + len(request.drafts)
        length = min(request.num_drafted_tokens, known)
        if not length:
            continue
        tokens = [*request.token_ids, *request.drafts][:length]
        places = [(request.block_table[i // cache.block_size], i % cache.block_size) for i in range(length)]
        blocks, offsets = map(list, zip(*places, strict=True))
        wanted, _ = pairs.fresh_run(model, tokens)
        for tensor, expected in zip((t for kv in cache.layers for t in (kv.k, kv.v)), wanted, strict=True):
            torch.testing.assert_close(tensor[blocks, offsets], expected, atol=1e-4, rtol=1e-3)


def assert_drafts_are_its_own(llm):
    """The drafts of each request are the most likely tokens of the draft model, one after the other."""
    model = llm.engine.proposer.runner.model
    for request in llm.engine.scheduler.running:
        if not request.drafts:
            continue
        _, logits = pairs.fresh_run(model, [*request.token_ids, *request.drafts[:-1]])
        best = logits[request.num_tokens - 1 :, : tiny.VOCAB_SIZE]
        for scores, draft in zip(best, request.drafts, strict=True):
            assert scores[draft] >= scores.max() - 1e-4


ways = pytest.mark.parametrize("way", ["together", "chunks", "few blocks, chunks", "contiguous"])


@ways
def test_its_cache_and_drafts_are_those_of_a_fresh_run(way):
    """After chunks, hits, forks, rejections, trimmed drafts and preemption, which all occur here."""
    llm, drafted = tiny.llm(speculative_config=pairs.draft(0.03), trace=True, **WAYS[way]), [0]

    def check(llm):
        assert_draft_cache_is_right(llm)
        assert_drafts_are_its_own(llm)
        drafted[0] += sum(len(request.drafts) for request in llm.engine.scheduler.running)

    asked = requests(len(KINDS))[:: 1 if "few" in way else 2]
    run(llm, asked, check)
    steps = llm.trace.of(StepRecord)
    assert drafted[0] > 50
    if "few" in way:
        assert any(part.num_cached_tokens for step in steps for part in step.scheduled)
        assert any(step.preempted for step in steps)
    if way == "chunks":
        assert any(step.copied for step in steps)


def test_a_copied_block_has_the_drafts_keys_and_values_too():
    """Three samples share a block that the draft model has filled. The first one copies it at once, and the second one
    in the next step, after another request has freed a block."""
    config = pairs.draft(0.03)
    llm = tiny.llm(speculative_config=config, num_gpu_blocks_override=4, block_size=8, trace=True)
    llm.engine.add_request(PROMPTS[0], SamplingParams(max_tokens=1))
    params = SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True)
    llm.engine.add_request(PROMPTS[4], params)
    while llm.engine.has_unfinished:
        llm.engine.step()
        tiny.assert_blocks_add_up(llm)
        assert_draft_cache_is_right(llm)
    copied = [len(step.copied) for step in llm.trace.of(StepRecord)]
    assert copied[:2] == [1, 1]


def fed(llm):
    """Return a list that gets the numbers of tokens of each run of the draft model."""
    runner, sizes = llm.engine.proposer.runner, []
    whole = runner.run

    def counted(step):
        sizes.append([len(chunk.token_ids) for chunk in step.chunks])
        return whole(step)

    runner.run = counted
    return sizes


GREEDY = SamplingParams(temperature=0, max_tokens=21, ignore_eos=True)


def test_after_full_acceptance_it_computes_two_tokens():
    """The model drafts for itself, so every draft is right. It never computed the last one of them."""
    llm = tiny.llm(speculative_config=pairs.draft(), trace=True)
    sizes = fed(llm)
    [output] = llm.generate([list(PROMPTS[0])], GREEDY, use_tqdm=False)
    assert tiny.tokens([output]) == tiny.tokens(
        tiny.llm().generate([list(PROMPTS[0])], GREEDY, use_tqdm=False)
    )
    one, two, prompt = [[1]] * 3, [[2]], [[6]]  # a prompt of 5 tokens and the first token
    assert sizes == [*prompt, *one, *two, *one, *two, *one, *two, *one]
    assert output.metrics.num_draft_tokens == output.metrics.num_accepted_tokens == 16
    origins = [record.origin for record in llm.trace.of(TokenRecord)]
    assert origins == ["sampled", *(["accepted"] * NUM_DRAFTS + ["bonus"]) * 4]


def test_after_a_rejection_it_computes_one_token():
    llm = tiny.llm(speculative_config=pairs.draft(seed=1))
    sizes = fed(llm)
    [output] = llm.generate([list(PROMPTS[0])], GREEDY, use_tqdm=False)
    assert output.metrics.num_accepted_tokens == 0
    assert sizes[0] == [6] and {tuple(one) for one in sizes[1:]} == {(1,)}


@pytest.mark.parametrize("n", [1, 4])
def test_a_prompt_is_computed_once_for_all_its_forks(n):
    llm = tiny.llm(speculative_config=pairs.draft(seed=1), block_size=4)
    sizes, prompt = fed(llm), list(PROMPTS[3])
    llm.engine.add_request(prompt, SamplingParams(n=n, seed=1, max_tokens=9, ignore_eos=True))
    llm.engine.step()
    assert sizes[0] == [len(prompt) + 1, *[1] * (n - 1)]  # a fork computes its own first token only
    while llm.engine.has_unfinished:
        assert_draft_cache_is_right(llm)
        llm.engine.step()


def drafts_of(llm, request_id):
    parts = [part for step in llm.trace.of(StepRecord) for part in step.scheduled]
    return [part.drafts for part in parts if part.request_id == request_id and part.drafts]


def test_drafts_after_a_prefix_hit_are_those_without_caching():
    found = []
    for caching in (False, True):
        llm = tiny.llm(
            speculative_config=pairs.draft(0.03), block_size=8, enable_prefix_caching=caching, trace=True
        )
        for _ in range(2):
            [output] = llm.generate([list(PROMPTS[3])], GREEDY, use_tqdm=False)
        assert output.num_cached_tokens == 32 * caching
        found.append(drafts_of(llm, "1"))
    assert found[0] == found[1] and len(found[0]) > 3


@pytest.mark.parametrize("n", [1, 3])
def test_the_last_full_block_of_a_finished_request_is_published(n):
    """Also if it finishes in the step that computes the prompt: max_tokens=1 is how prompts are scored."""
    for max_tokens in (1, 2):
        llm = tiny.llm(speculative_config=pairs.draft(0.03), block_size=8, trace=True)
        prompt = list(PROMPTS[3])  # 40 tokens
        params = SamplingParams(n=n, seed=1, max_tokens=max_tokens, ignore_eos=True)
        llm.generate([prompt], params, use_tqdm=False)
        [again] = llm.generate([[*prompt, 7]], SamplingParams(temperature=0, max_tokens=6), use_tqdm=False)
        assert again.num_cached_tokens == 40
        assert again.outputs[0].token_ids == tiny.greedy((*prompt, 7), 6)


def test_blocks_of_generated_tokens_are_hit_too():
    llm = tiny.llm(speculative_config=pairs.draft(0.03), block_size=4)
    prompt = list(PROMPTS[0])
    params = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True)
    [output] = llm.generate([prompt], params, use_tqdm=False)
    text = prompt + output.outputs[0].token_ids  # 21 tokens, of which 20 have keys and values
    [again] = llm.generate([[*text, 9]], params, use_tqdm=False)
    assert again.num_cached_tokens == 20
    assert_draft_cache_is_right(llm)


# ---- Pairs that differ ----


@pytest.mark.parametrize("vocab_size", [tiny.VOCAB_SIZE, tiny.VOCAB_SIZE + 20])
@pytest.mark.parametrize("method", ["greedy", "probabilistic"])
def test_the_padding_of_the_vocabularies_may_differ(vocab_size, method):
    """A prompt may name padding of the target, which the draft model does not have; penalties count it."""
    target = pairs.folder(vocab_size=tiny.VOCAB_SIZE + 8)
    config = pairs.draft(0.01, method, vocab_size=vocab_size)
    prompts = [list(PROMPTS[0]), [*PROMPTS[1], tiny.VOCAB_SIZE + 7, 7]]
    params = [
        SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, repetition_penalty=1.2),
        SamplingParams(temperature=0.2, seed=1, max_tokens=12, ignore_eos=True, repetition_penalty=1.2),
    ]
    with LLM(target, max_num_seqs=4) as plain, plain.variant(speculative_config=config) as llm:
        expected, found = plain.generate(prompts, params[0]), llm.generate(prompts, params[0])
        assert tiny.tokens(found) == tiny.tokens(expected)
        assert found[0].metrics.num_accepted_tokens > 0
        for output in llm.generate(prompts, params[1]):
            assert max(output.outputs[0].token_ids) < tiny.VOCAB_SIZE


def test_a_draft_whose_embedding_lacks_tokens_is_refused():
    config = pairs.draft(vocab_size=tiny.VOCAB_SIZE - 10)
    with pytest.raises(
        CheckpointError, match="has an embedding of 290 tokens, fewer than the 300 of its tokenizer"
    ):
        tiny.llm(speculative_config=config)


@pytest.mark.parametrize(
    "changes", [{"kv_cache_dtype": "int8"}, {"quantization": "int8"}, {"kv_cache": "contiguous"}]
)
def test_the_draft_may_be_of_another_shape(changes, monkeypatch):
    """One layer and one KV head, next to two of each."""
    monkeypatch.setenv("MINILLM_LINEAR", "reference")
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompts = [list(prompt) for prompt in PROMPTS]
    expected = tiny.llm(**changes).generate(prompts, params, use_tqdm=False)
    llm = tiny.llm(speculative_config=pairs.draft(seed=1), **changes)
    assert tiny.tokens(llm.generate(prompts, params, use_tqdm=False)) == tiny.tokens(expected)
    target, draft = llm.engine.runner.cache, llm.engine.proposer.cache
    assert (draft.num_blocks, draft.block_size) == (target.num_blocks, target.block_size)
    assert len(draft.layers) == 1 and draft.layers[0].k.dtype == target.layers[0].k.dtype


def test_the_weights_of_a_draft_may_be_quantised(tmp_path):
    """And of a model without a tokenizer, next to a model with one: its vocabulary has the same size."""
    export(tiny.llm(quantization="int8").model, tiny.folder(), tmp_path / "int8")
    for file in (tmp_path / "int8").glob("tokenizer*"):
        file.unlink()
    config = {"method": "draft_model", "model": str(tmp_path / "int8")}
    llm = tiny.llm(speculative_config=config)
    [output] = llm.generate([list(PROMPTS[0])], GREEDY, use_tqdm=False)
    assert tiny.tokens([output]) == tiny.tokens(
        tiny.llm().generate([list(PROMPTS[0])], GREEDY, use_tqdm=False)
    )
    assert output.metrics.num_accepted_tokens > 0
    assert llm.engine.proposer.runner.model.nbytes < llm.model.nbytes


def test_memory_is_divided_by_the_bytes_of_both_models():
    def bytes_per_block(llm):
        caches = (llm.engine.runner.cache, llm.engine.runner.draft_cache)
        return sum(cache.nbytes for cache in caches if cache is not None) / llm.engine.memory.num_blocks

    plain, llm = tiny.llm(), tiny.llm(speculative_config=pairs.draft())
    assert bytes_per_block(llm) == 2 * bytes_per_block(plain)


# ---- Errors ----


@pytest.mark.parametrize("draft_sample_method", ["greedy", "probabilistic"])
def test_a_draft_model_that_overflows_leaves_requests_without_drafts(draft_sample_method, monkeypatch):
    """The request's own tokens come from the model, so it ends as without speculation."""
    config = pairs.draft(0.0, draft_sample_method=draft_sample_method)
    llm = tiny.llm(speculative_config=config, trace=True)
    runner = llm.engine.proposer.runner
    whole, calls = runner.run, [0]

    def damaged(step):
        output = whole(step)
        calls[0] += 1
        if output.logits is None or calls[0] % 2 == 0:
            return output
        logits = output.logits.clone()
        logits[0] = torch.nan
        return replace(output, logits=logits)

    monkeypatch.setattr(runner, "run", damaged)
    prompts = [list(prompt) for prompt in PROMPTS[:3]]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    found = llm.generate(prompts, params, use_tqdm=False)
    assert tiny.tokens(found) == tiny.tokens(tiny.llm().generate(prompts, params, use_tqdm=False))
    tiny.assert_idle(llm)


def test_constraints_that_leave_the_draft_no_token_end_no_request(monkeypatch):
    config = pairs.draft(0.0, draft_sample_method="probabilistic")
    llm = tiny.llm(speculative_config=config)
    params = SamplingParams(seed=1, max_tokens=6, allowed_token_ids=[7], ignore_eos=True)
    runner = llm.engine.proposer.runner
    whole = runner.run

    def forbidding(step):
        output = whole(step)
        return replace(output, logits=output.logits.index_fill(1, torch.tensor(7), -torch.inf))

    monkeypatch.setattr(runner, "run", forbidding)
    [output] = llm.generate([list(PROMPTS[0])], params, use_tqdm=False)
    assert output.outputs[0].token_ids == [7] * 6 and output.metrics.num_draft_tokens == 0


def test_logits_processors_are_not_called_for_the_drafts():
    """They belong to the model's logits. Their calls are those of the model's rows: with each prefix of the drafts."""
    seen = []

    def processor(output, logits):
        seen.append(len(output))
        return logits

    config = pairs.draft(0.03, draft_sample_method="probabilistic")
    llm = tiny.llm(speculative_config=config, trace=True)
    params = SamplingParams(
        seed=1, temperature=0.3, max_tokens=9, ignore_eos=True, logits_processors=[processor]
    )
    llm.generate([list(PROMPTS[0])], params, use_tqdm=False)
    rows = [
        part.num_tokens
        for step in llm.trace.of(StepRecord)
        for part in step.scheduled
        if part.kind == "decode"
    ]
    assert len(seen) == 1 + sum(rows)


def test_a_restarted_request_forgets_its_drafts():
    llm = tiny.llm(speculative_config=pairs.draft(0.03, draft_sample_method="probabilistic"))
    llm.engine.add_request(PROMPTS[0], SamplingParams(seed=1, max_tokens=12, ignore_eos=True))
    llm.engine.step()
    [request] = llm.engine.scheduler.running
    assert len(request.drafts) == len(request.draft_probs) == NUM_DRAFTS
    llm.rebuild(speculative_config=None)
    assert request.drafts == [] and request.draft_probs is None and request.num_drafted_tokens == 0


# ---- Sampled drafts, through the whole engine ----

SMALL = {
    "vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 0,
    "initializer_range": 0.5,
}  # fmt: skip


def small_pair(path):
    """Write a model, and a draft model with other weights, without tokenizers. Return the model."""
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**SMALL)).eval()
    model.save_pretrained(path / "target")
    other = deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight += 0.3 * torch.randn_like(weight)
    other.save_pretrained(path / "draft")
    return model


def law_of(model, params, prompt, num_tokens):
    """Return the probability of each tuple of tokens that the model writes after `prompt`."""
    law = {(): 1.0}
    for _ in range(num_tokens):
        longer, rows = {}, [SamplingRow(params, 0, prompt, list(history)) for history in law]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *history] for history in law])).logits[:, -1]
        p = probabilities(process_logits(logits, rows), rows).double().tolist()
        for (history, mass), after in zip(law.items(), p, strict=True):
            longer |= {(*history, t): mass * share for t, share in enumerate(after)}
        law = longer
    return law


@pytest.mark.slow
def test_the_law_of_the_engines_tokens_is_that_of_the_model_alone(tmp_path):
    """50,000 samples of one prompt, each four tokens long: one, then up to two drafts and one more in a step."""
    model, prompt, num_tokens, n = small_pair(tmp_path), [3, 1, 4], 4, 1000
    params = SamplingParams(
        n=n,
        max_tokens=num_tokens,
        ignore_eos=True,
        temperature=1.3,
        top_k=6,
        frequency_penalty=0.5,
        detokenize=False,
    )
    law = law_of(model, params, prompt, num_tokens)
    config = {
        "method": "draft_model",
        "model": str(tmp_path / "draft"),
        "draft_sample_method": "probabilistic",
    }
    tokens, origins = [], Counter()
    with LLM(tmp_path / "target", max_num_seqs=n, speculative_config=config, trace=True) as llm:
        for _ in range(50):
            [output] = llm.generate([prompt], params, use_tqdm=False)
            tokens += [tuple(sample.token_ids) for sample in output.outputs]
        origins.update(record.origin for record in llm.trace.of(TokenRecord))
    assert min(origins.values()) > 10_000 and set(origins) == {"sampled", "accepted", "corrected", "bonus"}
    for i in range(num_tokens):
        marginal = Counter()
        for cell, mass in law.items():
            marginal[cell[i]] += mass
        assert ChiSquare.of([one[i] for one in tokens], marginal).p_value > LOWEST_P
    assert ChiSquare.of(tokens, law).p_value > LOWEST_P

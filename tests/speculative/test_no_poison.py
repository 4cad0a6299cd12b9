"""A rejected draft is never in the prefix cache: a request that begins with it computes it, and gets its own tokens."""

import random
from array import array
from types import SimpleNamespace

import pytest
import torch

from minillm import SamplingParams
from minillm.cache.manager import KVCacheManager
from minillm.cache.prefix import PrefixCache
from tests.engine import tiny
from tests.engine.test_drafts import assert_only_what_was_verified_is_known
from tests.engine.tiny import PROMPTS, Guess
from tests.speculative import pairs
from tests.speculative.test_draft_model import assert_draft_cache_is_right

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def wrong_for(request, num_drafts):
    """Return random drafts, which the model rejects."""
    luck = random.Random(request.num_tokens)
    return [luck.randrange(3, tiny.VOCAB_SIZE) for _ in range(num_drafts)]


@pytest.mark.parametrize(("block_size", "with_draft_model"), [(1, False), (4, False), (1, True), (2, True)])
def test_a_request_that_begins_with_rejected_drafts_computes_them(block_size, with_draft_model):
    """Whole blocks of rejected drafts lie in memory, and the longest hit ends where the accepted tokens do."""
    config = pairs.draft(seed=1) if with_draft_model else None
    llm = tiny.llm(block_size=block_size, speculative_config=config)
    rejected = []

    def propose(requests):
        found = [wrong_for(request, 6) for request in requests]
        rejected.extend((list(r.token_ids), drafts) for r, drafts in zip(requests, found, strict=True))
        return found

    if with_draft_model:
        own = llm.engine.proposer.propose

        def noted(computed):
            found = own(computed)
            for part, drafts in zip(computed.parts, found, strict=True):
                rejected.append((list(part.request.token_ids), drafts.token_ids))
            return found

        llm.engine.proposer.propose = noted
    else:
        llm.engine.proposer = Guess(propose)
    prompt = list(PROMPTS[0])
    [output] = llm.generate([prompt], GREEDY, use_tqdm=False)
    text = prompt + output.outputs[0].token_ids
    assert output.metrics.num_accepted_tokens < output.metrics.num_draft_tokens / 4
    assert_only_what_was_verified_is_known(llm, [output])
    for before, drafts in rejected[:4]:
        again = [*before, *drafts, 7]
        shared = next((i for i, (a, b) in enumerate(zip(again, text, strict=False)) if a != b), len(text))
        assert shared < len(before) + len(drafts)
        params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
        [found] = llm.generate([again], params, use_tqdm=False)
        assert found.num_cached_tokens <= shared
        [known] = tiny.llm().generate([again], params, use_tqdm=False)
        assert tiny.tokens([found]) == tiny.tokens([known])
        llm.engine.memory.reset()  # because the request has published them by now
        llm.generate([prompt], GREEDY, use_tqdm=False)


@pytest.mark.parametrize("name", [*pairs.configs(), "sampled drafts"])
def test_every_known_block_holds_the_keys_and_values_of_its_tokens(name):
    """Of both models. The tokens of a block follow from its name, and a fresh run gives its content."""
    changes = {"block_size": 4, "num_gpu_blocks_override": 30, "max_num_batched_tokens": 13}
    if name == "sampled drafts":
        llm = tiny.llm(speculative_config=pairs.draft(0.03, draft_sample_method="probabilistic"), **changes)
    else:
        llm = pairs.llm(name, **changes)
    params = [
        SamplingParams(temperature=0.4, top_k=3, seed=i, max_tokens=14, n=1 + i % 2, ignore_eos=True)
        for i in range(len(PROMPTS))
    ]
    outputs = llm.generate([list(prompt) for prompt in PROMPTS], params, use_tqdm=False)
    prefix, checked = llm.engine.memory.prefix, 0
    caches = [(llm.engine.runner.model, llm.engine.runner.cache)]
    if llm.engine.runner.draft_cache is not None:
        caches.append((llm.engine.proposer.runner.model, llm.engine.runner.draft_cache))
    for output in outputs:
        for sample in output.outputs:
            text, hashes = [*output.prompt_token_ids, *sample.token_ids[:-1]], []
            prefix.extend(hashes, text)
            for model, cache in caches:
                wanted, _ = pairs.fresh_run(model, text)
                tensors = [tensor for kv in cache.layers for tensor in (kv.k, kv.v)]
                for i, name_of_block in enumerate(hashes):
                    for block in prefix._blocks_of.get(name_of_block, ()):
                        for tensor, expected in zip(tensors, wanted, strict=True):
                            part = expected[4 * i : 4 * i + 4]
                            torch.testing.assert_close(tensor[block], part, atol=1e-4, rtol=1e-3)
                        checked += 1
    assert checked > 15
    assert_only_what_was_verified_is_known(llm, outputs)


def test_a_block_is_published_once_the_draft_model_has_computed_it():
    request = SimpleNamespace(
        token_ids=list(range(9)), num_tokens=9, may_hit=True, block_hashes=[], block_table=array("i")
    )
    memory = KVCacheManager(4, 4, PrefixCache(4), with_draft=True)
    assert memory.admit(request)
    request.num_computed_tokens, request.num_drafted_tokens = 9, 7
    assert memory.publish(request) == list(request.block_table[:1])
    request.num_drafted_tokens = 8
    assert memory.publish(request) == list(request.block_table[1:2])


@pytest.mark.parametrize("method", ["greedy", "probabilistic"])
def test_rejected_drafts_are_overwritten_in_both_caches(method):
    """The model's own keys and values too: what is behind the verified tokens is never read."""
    llm = tiny.llm(speculative_config=pairs.draft(seed=1, draft_sample_method=method), block_size=4)
    output = llm.engine.add_request(
        PROMPTS[0], SamplingParams(temperature=0.5, seed=1, max_tokens=30, ignore_eos=True)
    )
    model, cache = llm.engine.runner.model, llm.engine.runner.cache
    while not output.finished:
        llm.engine.step()
        for request in llm.engine.scheduler.running:
            length = request.num_computed_tokens
            assert length == request.num_tokens - 1
            wanted, _ = pairs.fresh_run(model, request.token_ids[:length])
            blocks, offsets = (
                [request.block_table[i // 4] for i in range(length)],
                [i % 4 for i in range(length)],
            )
            tensors = [tensor for kv in cache.layers for tensor in (kv.k, kv.v)]
            for tensor, expected in zip(tensors, wanted, strict=True):
                torch.testing.assert_close(tensor[blocks, offsets], expected, atol=1e-4, rtol=1e-3)
        assert_draft_cache_is_right(llm)
    assert output.metrics.num_accepted_tokens < output.metrics.num_draft_tokens / 4

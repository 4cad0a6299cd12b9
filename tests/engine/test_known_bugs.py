"""Bugs that engines have shipped, put into ours: the equality gate must see each of them.

The bugs are those that other engines' issue trackers tell of. Each is a small change to a running engine; what the gate
then finds wrong is what a user would have read.
"""

from dataclasses import replace

import pytest
import torch

from minillm import SamplingParams
from minillm.batch import Batch
from minillm.cache import prefix
from minillm.cache.kv_cache import KVCache
from minillm.cache.manager import KVCacheManager
from minillm.engine.scheduler import Scheduler
from minillm.engine.step import StepInput
from minillm.model.transformer import Transformer
from minillm.sampling import NonFiniteLogitsError
from tests.engine import tiny
from tests.engine.tiny import PROMPTS

MAX_TOKENS = 16
FEW = {"num_gpu_blocks_override": 8, "block_size": 8}
GROWING = [
    PROMPTS[i] for i in (0, 4, 5, 1)
]  # short prompts that are admitted together and outgrow eight blocks


def wrong(llm, prompts, n=1):
    """The outputs that differ from those of `transformers`; what breaks the engine altogether counts too."""
    params = SamplingParams(top_k=1, max_tokens=MAX_TOKENS, n=n)  # greedy takes no n
    for memory in tiny.cache_tensors(llm):
        memory.fill_(torch.nan)
    try:
        outputs = llm.generate([list(prompt) for prompt in prompts], params)
    except (ValueError, RuntimeError, IndexError, NonFiniteLogitsError) as error:
        return [repr(error)]
    found = tiny.tokens(outputs)
    return [i for i, prompt in enumerate(prompts) if found[i] != [tiny.greedy(prompt, MAX_TOKENS)] * n]


def rope_is_off_by_one_in_decode(patch):
    call = Transformer.__call__

    def shifted(self, batch, cache):
        lengths = batch.query_start.diff()
        decoding = (lengths == 1).repeat_interleave(lengths) & (batch.positions > 0)
        return call(self, replace(batch, positions=batch.positions + decoding), cache)

    patch.setattr(Transformer, "__call__", shifted)


def a_chunk_reads_past_what_is_written(patch):
    of = Batch.of.__func__

    def longer(cls, chunks, block_size, device="cpu"):
        batch = of(cls, chunks, block_size, device)
        return replace(batch, seq_lens=(batch.seq_lens + 1).clamp(max=95))

    patch.setattr(Batch, "of", classmethod(longer))


def the_head_reads_the_wrong_rows_of_a_batch(patch):
    logits = Transformer.logits
    patch.setattr(Transformer, "logits", lambda self, hidden: logits(self, hidden.roll(1, 0)))


def only_the_first_row_is_computed_right(patch):
    """As where an all-reduce took `output[0]`: right for one request, wrong for two."""
    logits = Transformer.logits
    patch.setattr(Transformer, "logits", lambda self, hidden: logits(self, hidden[:1].expand_as(hidden)))


def a_preempted_request_keeps_its_computed_count(patch):
    make_room = Scheduler._make_room

    def forgetful(self):
        computed = self.running[-1].num_computed_tokens
        request = make_room(self)
        request.num_computed_tokens = computed
        return request

    def admit(self, request, headroom=0):
        stale = request.num_computed_tokens
        admitted = honest(self, request, headroom)
        if admitted and stale:
            request.num_computed_tokens = min(stale, request.num_tokens - 1)
        return admitted

    honest = KVCacheManager.admit
    patch.setattr(Scheduler, "_make_room", forgetful)
    patch.setattr(KVCacheManager, "admit", admit)


def a_hit_covers_the_whole_prompt(patch):
    """Nothing is left to compute, so there are no logits to sample from."""
    admit = KVCacheManager.admit

    def greedy(self, request, headroom=0):
        admitted = admit(self, request, headroom)
        if admitted and request.num_tokens - request.num_cached_tokens <= self.block_size:
            request.num_computed_tokens = request.num_tokens
        return admitted

    patch.setattr(KVCacheManager, "admit", greedy)


def a_hash_forgets_what_came_before(patch):
    honest = prefix.block_hash
    patch.setattr(prefix, "block_hash", lambda parent, token_ids: honest(b"", token_ids))


def forks_write_into_the_shared_block(patch):
    patch.setattr(KVCache, "copy_blocks", lambda self, copies: None)


def a_fork_shares_without_copying(patch):
    grow = KVCacheManager.grow

    def shared(self, request):
        allocator, holders = self.allocator, self.allocator.holders
        allocator.holders = lambda block: 1
        try:
            return grow(self, request)
        finally:
            allocator.holders = holders

    patch.setattr(KVCacheManager, "grow", shared)


def outputs_are_forgotten_at_a_preemption(patch):
    make_room = Scheduler._make_room

    def forgetful(self):
        request = make_room(self)
        del request.token_ids[request.num_prompt_tokens :]
        return request

    patch.setattr(Scheduler, "_make_room", forgetful)


def the_first_token_of_a_chunk_is_sampled_too(patch):
    """A chunk that does not reach the prompt's end gets a token all the same."""
    lay_out = StepInput.of.__func__

    def eager(cls, scheduled, copies=(), taps=None):
        for request, num_tokens in scheduled:
            if request.num_computed_tokens + num_tokens < request.num_prompt_tokens:
                del request.token_ids[request.num_computed_tokens + num_tokens :]
        return lay_out(cls, scheduled, copies, taps)

    patch.setattr(StepInput, "of", classmethod(eager))


BUGS = {
    rope_is_off_by_one_in_decode: ({}, PROMPTS[:2], 1),
    a_chunk_reads_past_what_is_written: ({"max_num_batched_tokens": 7}, PROMPTS[2:4], 1),
    the_head_reads_the_wrong_rows_of_a_batch: ({}, PROMPTS[:2], 1),
    only_the_first_row_is_computed_right: ({}, PROMPTS[:2], 1),
    a_preempted_request_keeps_its_computed_count: (FEW, GROWING, 1),
    a_hit_covers_the_whole_prompt: ({"block_size": 8, "max_num_seqs": 1}, [PROMPTS[3]] * 2, 1),
    a_hash_forgets_what_came_before: (
        {"block_size": 4, "max_num_seqs": 1},
        [PROMPTS[3], PROMPTS[2], PROMPTS[2][:4] + PROMPTS[3][4:]],
        1,
    ),
    forks_write_into_the_shared_block: ({"block_size": 8}, PROMPTS[2:3], 3),
    outputs_are_forgotten_at_a_preemption: (FEW, GROWING, 1),
    the_first_token_of_a_chunk_is_sampled_too: ({"max_num_batched_tokens": 7}, PROMPTS[2:4], 1),
}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_the_gate_sees(bug, monkeypatch):
    changes, prompts, n = BUGS[bug]
    assert wrong(tiny.llm(**changes), prompts, n) == []
    with monkeypatch.context() as patch:
        bug(patch)
        assert wrong(tiny.llm(**changes), prompts, n) != []


def sampled_forks(llm):
    params = SamplingParams(n=3, temperature=1.5, seed=1, max_tokens=MAX_TOKENS, ignore_eos=True)
    return tiny.tokens(llm.generate([list(PROMPTS[0])], params))


def test_the_gate_sees_forks_that_share_what_they_write(monkeypatch):
    """Greedy forks write the same: only different samples tell."""
    expected = sampled_forks(tiny.llm())
    with monkeypatch.context() as patch:
        a_fork_shares_without_copying(patch)
        assert sampled_forks(tiny.llm()) != expected


def test_the_gate_sees_blocks_that_were_published_before_they_were_written(monkeypatch):
    """A forward pass fails. The next request with the same prompt must not find blocks that were never written."""

    def again(llm):
        for memory in tiny.cache_tensors(llm):
            memory.fill_(torch.nan)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transformer, "__call__", lambda *_: 1 / 0)
            llm.engine.add_request(PROMPTS[3], SamplingParams(max_tokens=1))
            with pytest.raises(ZeroDivisionError):
                llm.engine.step()
        return wrong(llm, PROMPTS[3:4])

    assert again(tiny.llm()) == []
    schedule, reset = Scheduler.schedule, KVCacheManager.reset

    def eager(self):
        scheduled = schedule(self)
        for request, num_tokens in scheduled:
            request.num_computed_tokens += num_tokens
            self.memory.publish(request)
            request.num_computed_tokens -= num_tokens
        return scheduled

    def trusting(self):
        known = getattr(self, "prefix", None)
        reset(self)
        self.prefix = known or self.prefix

    monkeypatch.setattr(Scheduler, "schedule", eager)
    assert again(tiny.llm()) == [], "what an error may have left half done is forgotten"
    monkeypatch.setattr(KVCacheManager, "reset", trusting)
    assert again(tiny.llm()) != []

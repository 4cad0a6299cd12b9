"""The scheduler by itself: its requests are counters, so that thousands of schedules take a second."""

from array import array
from collections import Counter
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minillm.cache.manager import KVCacheManager
from minillm.cache.prefix import PrefixCache
from minillm.engine.request import Status
from minillm.engine.scheduler import Scheduler
from minillm.engine.static import StaticScheduler

numbers = count()


class Numbers:
    """A request with the attributes that the scheduler and the manager read. No model computes its tokens."""

    def __init__(self, num_tokens, priority=0, token_ids=None, most=10**6):
        self.max_cached_tokens, self.drafts, self.num_published = most, [], 0
        self.token_ids = [-next(numbers) for _ in range(num_tokens)] if token_ids is None else token_ids
        self.arrival, self.priority, self.may_hit = (next(numbers), 0), priority, True
        self.num_computed_tokens = self.num_cached_tokens = 0
        self.status, self.block_table, self.block_hashes = Status.WAITING, array("i"), []

    @property
    def num_tokens(self):
        return len(self.token_ids)

    @property
    def num_wanted(self):
        return len(self.token_ids) + len(self.drafts)


def make(*prompts, blocks=64, block_size=4, prefix=False, seqs=8, budget=16, kind=Scheduler, **options):
    memory = KVCacheManager(blocks, block_size, PrefixCache(block_size) if prefix else None)
    scheduler = kind(memory, seqs, budget, **options)
    requests = [Numbers(num_tokens) for num_tokens in prompts]
    for request in requests:
        scheduler.add(request)
    return scheduler, requests


def advance(scheduler, scheduled, end=()):
    """Compute what was scheduled; a request that reaches its end samples one token, or ends with it."""
    for request, num_tokens in scheduled:
        request.num_computed_tokens += num_tokens
        accepted = len(request.drafts) // 2
        if request.status is Status.RUNNING and request.num_computed_tokens == request.num_wanted:
            request.token_ids += [*request.drafts[:accepted], -next(numbers)]
        request.drafts = []
        request.num_computed_tokens = min(request.num_computed_tokens, request.num_tokens - 1)
        scheduler.memory.publish(request)
    for request in end:
        request.status = Status.FINISHED
        scheduler.release(request)
    scheduler.memory.copies.clear()


def step(scheduler, requests, end=()):
    """One step as {request's number: tokens}, in the order scheduled."""
    scheduled = scheduler.schedule()
    advance(scheduler, scheduled, [requests[i] for i in end])
    return {requests.index(request): num_tokens for request, num_tokens in scheduled}


def test_prompts_go_in_by_arrival_and_the_last_one_gets_what_is_left():
    scheduler, requests = make(5, 7, 9, 3, budget=16)
    assert step(scheduler, requests) == {0: 5, 1: 7, 2: 4}
    assert step(scheduler, requests) == {0: 1, 1: 1, 2: 5, 3: 3}
    assert step(scheduler, requests) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_who_runs_comes_before_who_waits():
    scheduler, requests = make(2, 40, budget=8)
    assert step(scheduler, requests) == {0: 2, 1: 6}
    requests.append(Numbers(1))
    scheduler.add(requests[-1])
    assert step(scheduler, requests) == {0: 1, 1: 7}
    assert [requests.index(request) for request in scheduler.waiting] == [2]


@pytest.mark.parametrize("limits", [{"blocks": 4}, {"seqs": 2}])
def test_a_place_is_given_when_one_comes_free(limits):
    """Two prompts of one block each run. The third needs its own block and one spare block for each of them."""
    scheduler, requests = make(3, 3, 3, **limits)
    assert step(scheduler, requests) == {0: 3, 1: 3}
    assert step(scheduler, requests, end=[0]) == {0: 1, 1: 1}
    assert step(scheduler, requests) == {1: 1, 2: 3}


def test_a_long_prompt_leaves_room_for_others_under_a_threshold():
    scheduler, requests = make(40, 2, budget=16, long_prefill_token_threshold=6)
    assert step(scheduler, requests) == {0: 6, 1: 2}
    assert step(scheduler, requests) == {0: 6, 1: 1}


def test_a_whole_prompt_waits_until_it_fits_where_chunks_are_off():
    scheduler, requests = make(6, 5, 1, budget=8, enable_chunked_prefill=False)
    assert step(scheduler, requests) == {0: 6}  # nor does the third overtake the second
    assert step(scheduler, requests) == {0: 1, 1: 5, 2: 1}


def test_admission_waits_while_those_that_run_could_not_grow():
    scheduler, requests = make(8, 8, 4, blocks=6)
    assert step(scheduler, requests) == {0: 8, 1: 8}, (
        "two blocks are left, and two requests will want one each"
    )
    assert scheduler.preempted == []


def until_preempted(scheduler, most=20):
    """Run until a step preempts, and return what it scheduled."""
    for _ in range(most):
        scheduled = scheduler.schedule()
        if scheduler.preempted:
            return [request for request, _ in scheduled]
        advance(scheduler, scheduled)
    raise AssertionError("nobody was preempted")


def test_the_newest_is_preempted_and_comes_back_first():
    scheduler, requests = make(7, 3, 3, blocks=4, budget=32)
    assert step(scheduler, requests) == {0: 7, 1: 3}
    assert step(scheduler, requests) == {0: 1, 1: 1}
    assert step(scheduler, requests) == {0: 1} and scheduler.preempted == [requests[1]]
    assert scheduler.waiting == requests[1:]
    assert (requests[1].num_tokens, requests[1].num_computed_tokens) == (5, 0)
    assert step(scheduler, requests, end=[0]) == {0: 1}
    assert step(scheduler, requests) == {1: 5, 2: 3}, "prompt and output are computed again"


def test_who_was_preempted_finds_again_what_was_not_given_away():
    scheduler, requests = make(8, 4, blocks=5, prefix=True)
    assert until_preempted(scheduler) == requests[:1]
    preempted = requests[1]
    assert scheduler.preempted == [preempted] and preempted.num_tokens == 9, "two full blocks, and one token"
    for request in requests[:1]:
        request.status = Status.FINISHED
        scheduler.release(request)
    assert step(scheduler, requests) == {1: 5} and preempted.num_cached_tokens == 4, "the tail was given away"


def test_a_step_that_preempts_admits_nobody():
    scheduler, _ = make(blocks=6, policy="priority")
    first, low, urgent = Numbers(3), Numbers(7, priority=1), Numbers(5)
    for request in (first, low):
        scheduler.add(request)
    advance(scheduler, scheduler.schedule())
    scheduler.add(urgent)
    assert until_preempted(scheduler) == [first] and scheduler.preempted == [low]
    assert scheduler.memory.num_free == 3 and scheduler.waiting == [urgent, low]
    first.num_computed_tokens = first.num_tokens
    first.token_ids.append(0)
    assert scheduler.schedule() == [(first, 1), (urgent, 5)], "though there were blocks for it"


def test_priority_comes_before_arrival_and_the_least_urgent_gives_way():
    scheduler, _ = make(seqs=1, policy="priority")
    early, late, urgent = Numbers(3, priority=5), Numbers(3, priority=5), Numbers(3, priority=-1)
    for request in (late, early, urgent):
        scheduler.add(request)
    order = []
    for _ in range(3):
        [(request, _)] = scheduler.schedule()
        order.append(request)
        request.status = Status.FINISHED
        scheduler.release(request)
    assert order == [urgent, early, late]
    scheduler, _ = make(blocks=3, policy="priority")
    low, high = Numbers(3, priority=1), Numbers(3)
    for request in (low, high):
        scheduler.add(request)
        advance(scheduler, scheduler.schedule())
    assert until_preempted(scheduler) == [high] and scheduler.preempted == [low]


def test_first_come_first_served_knows_no_priority():
    scheduler, _ = make(seqs=1)
    first, second = Numbers(3, priority=9), Numbers(3)
    for request in (second, first):
        scheduler.add(request)
    assert scheduler.schedule() == [(first, 3)]


def test_forks_run_where_there_is_a_place_and_wait_where_there_is_none():
    scheduler, [parent] = make(5, seqs=2)
    scheduled = scheduler.schedule()
    parent.num_computed_tokens = 5
    children = [Numbers(5, token_ids=list(parent.token_ids)) for _ in range(2)]
    assert scheduler.fork(parent, children) == children[:1]
    assert scheduler.running == [parent, children[0]] and scheduler.waiting == [children[1]]
    assert children[0].num_computed_tokens == 5 and scheduled == [(parent, 5)]


def test_an_idle_scheduler_has_nothing_to_do():
    scheduler, _ = make()
    assert scheduler.schedule() == [] and not scheduler.has_unfinished


def test_what_can_never_go_on_raises():
    scheduler, _ = make(9, budget=8, enable_chunked_prefill=False)
    with pytest.raises(RuntimeError, match=r"1 requests wait.*9 tokens.*max_num_batched_tokens is 8"):
        scheduler.schedule()


def test_release_takes_a_request_out_wherever_it_stands_and_once():
    scheduler, (running, waiting) = make(3, 3, seqs=1)
    scheduler.schedule()
    for request in (waiting, running, running, waiting):
        scheduler.release(request)
    assert not scheduler.has_unfinished and scheduler.memory.num_free == 64


# ---- static batches ----


def test_a_static_batch_begins_and_ends_together():
    scheduler, requests = make(5, 3, 2, seqs=2, budget=4, kind=StaticScheduler)
    assert step(scheduler, requests) == {0: 5, 1: 3}, "without a budget"
    assert step(scheduler, requests, end=[1]) == {0: 1, 1: 1}
    assert step(scheduler, requests) == {0: 1, 1: 1}, "who has finished computes on"
    assert step(scheduler, requests, end=[0]) == {0: 1, 1: 1}
    assert step(scheduler, requests) == {2: 2}, "and the next batch begins when all have"
    assert step(scheduler, requests, end=[2]) == {2: 1}
    assert scheduler.schedule() == [] and scheduler.memory.num_free == 64


def test_padding_gives_way_before_anybody_is_preempted():
    scheduler, requests = make(3, 3, blocks=2, kind=StaticScheduler)
    step(scheduler, requests)
    step(scheduler, requests, end=[1])
    assert step(scheduler, requests) == {0: 1} and scheduler.preempted == []
    assert scheduler.running == requests[:1]


class Schedules(RuleBasedStateMachine):
    """Any order of arrivals, steps, forks, ends and aborts, over few blocks."""

    @initialize(
        blocks=st.integers(4, 9),
        block_size=st.integers(1, 4),
        prefix=st.booleans(),
        seqs=st.integers(1, 4),
        budget=st.integers(1, 12),
        chunked=st.booleans(),
        policy=st.sampled_from(["fcfs", "priority"]),
        kind=st.sampled_from([Scheduler, Scheduler, StaticScheduler]),
    )
    def begin(self, blocks, block_size, prefix, seqs, budget, chunked, policy, kind):
        self.capacity = blocks * block_size
        budget = budget if chunked else self.capacity
        self.scheduler, _ = make(
            blocks=blocks,
            block_size=block_size,
            prefix=prefix,
            seqs=seqs,
            budget=budget,
            kind=kind,
            enable_chunked_prefill=chunked,
            policy=policy,
        )

    @rule(num_tokens=st.integers(1, 12), priority=st.integers(-1, 1), alike=st.booleans())
    def add(self, num_tokens, priority, alike):
        num_tokens = min(num_tokens, self.capacity)
        self.scheduler.add(Numbers(num_tokens, priority, list(range(num_tokens)) if alike else None))

    @rule()
    def step(self):
        scheduler = self.scheduler
        unfinished, before = scheduler.has_unfinished, list(scheduler.running)
        scheduled = scheduler.schedule()
        requests = [request for request, _ in scheduled]
        padding = [request for request in requests if request.status is Status.FINISHED]
        live = [request for request in requests if request not in padding]
        assert bool(scheduled) == unfinished, "a step makes progress"
        assert len(set(requests)) == len(requests)
        if not isinstance(scheduler, StaticScheduler):
            assert padding == []
            assert sum(num_tokens for _, num_tokens in scheduled) <= scheduler.max_num_batched_tokens
        assert all(request not in scheduler.preempted for request in requests)
        assert not scheduler.preempted or set(requests) <= {*before, *padding}, "who preempted admits nobody"
        ranks = [scheduler._rank(request) for request in before if request in scheduler.preempted]
        assert all(scheduler._rank(r) < rank for r in scheduler.running for rank in ranks), (
            "the last give way"
        )
        for request, num_tokens in scheduled:
            wanted = request.num_wanted - request.num_computed_tokens
            assert 0 < num_tokens <= wanted
            assert not request.drafts or num_tokens == wanted, "drafts that are not computed are dropped"
            assert num_tokens == wanted or scheduler.enable_chunked_prefill
            assert len(request.block_table) * scheduler.memory.block_size >= request.num_wanted
            first = request.num_computed_tokens // scheduler.memory.block_size
            for block in request.block_table[first:]:
                assert scheduler.memory.allocator.holders(block) == 1, "nobody else reads what is written"
        for source, target in scheduler.memory.copies:
            assert source != target
        full = [r for r in live if r.num_tokens >= self.capacity]
        advance(scheduler, scheduled, end=[r for r in full if r.status is Status.RUNNING])

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data(), n=st.integers(1, 3))
    def fork(self, data, n):
        parent = data.draw(st.sampled_from(self.scheduler.running))
        if parent.num_computed_tokens == 0 or parent.num_tokens - parent.num_computed_tokens > 1:
            return
        tokens = parent.token_ids[: parent.num_computed_tokens]
        children = [Numbers(0, parent.priority, list(tokens)) for _ in range(n)]
        for child in self.scheduler.fork(parent, children):
            child.token_ids.append(-next(numbers))

    @precondition(lambda self: self.scheduler.running)
    @rule(data=st.data(), n=st.integers(1, 4))
    def draft(self, data, n):
        """Drafts that could all be accepted: a request never grows beyond the pool."""
        request = data.draw(st.sampled_from(self.scheduler.running))
        if request.status is Status.RUNNING and request.num_computed_tokens == request.num_tokens - 1:
            request.drafts = [-next(numbers) for _ in range(min(n, self.capacity - request.num_tokens))]

    @precondition(lambda self: self.scheduler.has_unfinished)
    @rule(data=st.data())
    def end(self, data):
        request = data.draw(st.sampled_from([*self.scheduler.running, *self.scheduler.waiting]))
        request.status = Status.FINISHED
        self.scheduler.release(request)

    @invariant()
    def every_block_is_held_by_its_tables_or_free(self):
        scheduler, memory = self.scheduler, self.scheduler.memory
        held = Counter(b for r in scheduler.running for b in r.block_table)
        holders = [memory.allocator.holders(block) for block in range(memory.num_blocks)]
        assert holders == [held[block] for block in range(memory.num_blocks)]
        assert memory.num_free == holders.count(0)
        assert len(scheduler.running) <= scheduler.max_num_seqs
        for queue in (scheduler.running, scheduler.waiting):
            assert [scheduler._rank(r) for r in queue if r.status is not Status.FINISHED] == sorted(
                scheduler._rank(r) for r in queue if r.status is not Status.FINISHED
            )
        assert all(len(r.block_table) == 0 == r.num_computed_tokens for r in scheduler.waiting)
        assert all(r.num_computed_tokens < r.num_tokens for r in scheduler.running)

    def teardown(self):
        if hasattr(self, "scheduler"):
            for request in [*self.scheduler.running, *self.scheduler.waiting]:
                request.status = Status.FINISHED
                self.scheduler.release(request)
            assert self.scheduler.memory.num_free == self.scheduler.memory.num_blocks


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(max_examples=120, stateful_step_count=50)

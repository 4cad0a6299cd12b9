"""The scheduler by itself: its requests are counters, so that thousands of schedules take a second."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from minillm.cache.contiguous import RowAllocator
from minillm.engine.request import Status
from minillm.engine.scheduler import Scheduler


class Counter:
    """What the scheduler sees of a request."""

    def __init__(self, num_tokens):
        self.num_tokens, self.num_computed_tokens = num_tokens, 0
        self.status, self.block_table = Status.WAITING, []


def make(*prompts, rows=8, seqs=8, budget=16, chunked=True):
    scheduler = Scheduler(RowAllocator(rows), seqs, budget, chunked)
    requests = [Counter(num_tokens) for num_tokens in prompts]
    for request in requests:
        scheduler.add(request)
    return scheduler, requests


def advance(scheduled):
    """Compute what was scheduled; a request that reaches its end samples one token."""
    for request, num_tokens in scheduled:
        request.num_computed_tokens += num_tokens
        if request.num_computed_tokens == request.num_tokens:
            request.num_tokens += 1


def step(scheduler, requests):
    """One step as {request's number: tokens}, in the order scheduled."""
    scheduled = scheduler.schedule()
    advance(scheduled)
    return {requests.index(request): num_tokens for request, num_tokens in scheduled}


def test_prompts_go_in_by_arrival_and_the_last_one_gets_what_is_left():
    scheduler, requests = make(5, 7, 9, 3, budget=16)
    assert step(scheduler, requests) == {0: 5, 1: 7, 2: 4}
    assert step(scheduler, requests) == {0: 1, 1: 1, 2: 5, 3: 3}
    assert step(scheduler, requests) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_who_runs_comes_before_who_waits():
    scheduler, requests = make(2, 40, budget=8)
    assert step(scheduler, requests) == {0: 2, 1: 6}
    requests.append(Counter(1))
    scheduler.add(requests[-1])
    assert step(scheduler, requests) == {0: 1, 1: 7}
    assert [requests.index(request) for request in scheduler.waiting] == [2]


@pytest.mark.parametrize("limits", [{"rows": 2}, {"seqs": 2}])
def test_a_place_is_given_when_one_comes_free(limits):
    scheduler, requests = make(3, 3, 3, **limits)
    assert step(scheduler, requests) == {0: 3, 1: 3}
    assert step(scheduler, requests) == {0: 1, 1: 1}
    scheduler.release(requests[0])
    assert step(scheduler, requests) == {1: 1, 2: 3}
    assert requests[2].block_table == [0]


def test_a_whole_prompt_waits_until_it_fits_where_chunks_are_off():
    scheduler, requests = make(6, 5, 1, budget=8, chunked=False)
    assert step(scheduler, requests) == {0: 6}  # nor does the third overtake the second
    assert step(scheduler, requests) == {0: 1, 1: 5, 2: 1}


def test_an_idle_scheduler_has_nothing_to_do():
    scheduler, _ = make()
    assert scheduler.schedule() == [] and not scheduler.has_unfinished


def test_what_can_never_go_on_raises():
    scheduler, _ = make(9, budget=8, chunked=False)
    with pytest.raises(RuntimeError, match=r"1 requests wait.*9 tokens.*max_num_batched_tokens is 8"):
        scheduler.schedule()


def test_release_takes_a_request_out_wherever_it_stands_and_once():
    scheduler, (running, waiting) = make(3, 3, seqs=1)
    scheduler.schedule()
    for request in (waiting, running, running, waiting):
        scheduler.release(request)
    assert not scheduler.has_unfinished and scheduler.allocator.num_free == 8


class Schedules(RuleBasedStateMachine):
    """Any order of arrivals, steps, ends and aborts."""

    @initialize(
        rows=st.integers(1, 4), seqs=st.integers(1, 4), budget=st.integers(1, 16), chunked=st.booleans()
    )
    def begin(self, rows, seqs, budget, chunked):
        self.scheduler, self.arrived = make(rows=rows, seqs=seqs, budget=budget, chunked=chunked)

    @rule(num_tokens=st.integers(1, 16))
    def add(self, num_tokens):
        if not self.scheduler.enable_chunked_prefill:
            num_tokens = min(num_tokens, self.scheduler.max_num_batched_tokens)
        self.arrived.append(Counter(num_tokens))
        self.scheduler.add(self.arrived[-1])

    @rule()
    def step(self):
        unfinished, before = self.scheduler.has_unfinished, list(self.scheduler.running)
        scheduled = self.scheduler.schedule()
        requests = [request for request, _ in scheduled]
        assert bool(scheduled) == unfinished, "a step makes progress"
        assert len(set(requests)) == len(requests)
        assert sum(num_tokens for _, num_tokens in scheduled) <= self.scheduler.max_num_batched_tokens
        assert requests == [request for request in self.arrived if request in requests], "in order of arrival"
        assert self.scheduler.running[: len(before)] == before
        for request, num_tokens in scheduled:
            wanted = request.num_tokens - request.num_computed_tokens
            assert 0 < num_tokens <= wanted
            assert num_tokens == wanted or self.scheduler.enable_chunked_prefill
        advance(scheduled)

    @precondition(lambda self: self.scheduler.has_unfinished)
    @rule(data=st.data())
    def end(self, data):
        requests = [*self.scheduler.running, *self.scheduler.waiting]
        self.scheduler.release(requests[data.draw(st.integers(0, len(requests) - 1))])

    @invariant()
    def every_place_is_held_once_or_free(self):
        scheduler, allocator = self.scheduler, self.scheduler.allocator
        held = [row for request in scheduler.running for row in request.block_table]
        assert len(scheduler.running) == len(held) == len(set(held)) <= scheduler.max_num_seqs
        assert len(held) + allocator.num_free == allocator.num_rows
        assert all(request.block_table == [] for request in scheduler.waiting)
        assert all(request.num_computed_tokens < request.num_tokens for request in scheduler.running)

    def teardown(self):
        if hasattr(self, "scheduler"):
            for request in [*self.scheduler.running, *self.scheduler.waiting]:
                self.scheduler.release(request)
            assert self.scheduler.allocator.num_free == self.scheduler.allocator.num_rows


TestSchedules = Schedules.TestCase

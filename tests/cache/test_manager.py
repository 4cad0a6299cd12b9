"""The manager by itself: what a request gets, shares and gives back. Whole lives are in tests/engine/."""

from array import array

import pytest

from minillm.cache.manager import KVCacheManager
from minillm.cache.prefix import PrefixCache


class Tokens:
    """What the manager sees of a request."""

    def __init__(self, *token_ids, may_hit=True):
        self.token_ids, self.may_hit = list(token_ids), may_hit
        self.num_computed_tokens = self.num_cached_tokens = 0
        self.block_table, self.block_hashes = array("i"), []

    @property
    def num_tokens(self):
        return len(self.token_ids)


def manager(num_blocks=8, block_size=4, prefix=True, **kwargs):
    return KVCacheManager(num_blocks, block_size, PrefixCache(block_size) if prefix else None, **kwargs)


def compute(memory, request):
    before, request.num_computed_tokens = request.num_computed_tokens, request.num_tokens
    return memory.publish(request, before)


def test_a_request_gets_blocks_for_all_of_its_tokens_or_none():
    memory, request = manager(num_blocks=3), Tokens(*range(9))
    assert memory.admit(request) and len(request.block_table) == 3 and memory.num_free == 0
    late = Tokens(1)
    assert not memory.admit(late) and len(late.block_table) == 0
    request.num_computed_tokens = 9
    request.token_ids += range(3)
    assert memory.grow(request) and len(request.block_table) == 3
    request.token_ids.append(7)
    assert not memory.grow(request) and len(request.block_table) == 3
    memory.free(request)
    assert memory.num_free == 3


def test_rows_need_no_headroom_since_they_never_grow():
    memory = manager(num_blocks=2, prefix=False, one_block_each=True)
    assert memory.admit(Tokens(1)) and memory.admit(Tokens(1), headroom=1)


def test_headroom_is_left_free():
    memory = manager(num_blocks=4)
    assert not memory.admit(Tokens(*range(8)), headroom=3)
    assert memory.num_free == 4
    assert memory.admit(Tokens(*range(8)), headroom=2)


def test_a_hit_takes_blocks_that_are_in_use_and_blocks_that_are_free():
    memory = manager()
    first = Tokens(*range(10))
    memory.admit(first)
    assert compute(memory, first) == list(first.block_table[:2]), "full blocks only"
    second = Tokens(*range(8), 99)
    assert memory.admit(second) and second.block_table[:2] == first.block_table[:2]
    assert second.num_computed_tokens == second.num_cached_tokens == 8 and memory.num_free == 4
    memory.free(first), memory.free(second)
    assert (memory.num_free, memory.num_cached) == (8, 2)
    third = Tokens(*range(10))
    assert memory.admit(third) and third.num_cached_tokens == 8 and memory.num_cached == 0


@pytest.mark.parametrize(("num_tokens", "cached"), [(8, 4), (9, 8), (12, 8), (4, 0), (3, 0)])
def test_one_token_at_least_is_left_to_compute(num_tokens, cached):
    memory, first = manager(), Tokens(*range(12))
    memory.admit(first)
    compute(memory, first)
    again = Tokens(*range(num_tokens))
    assert memory.admit(again) and again.num_computed_tokens == cached


def test_who_wants_every_position_gets_no_hit():
    memory, first = manager(), Tokens(*range(12))
    memory.admit(first)
    compute(memory, first)
    every = Tokens(*range(12), may_hit=False)
    assert memory.admit(every) and every.num_computed_tokens == 0


def test_what_is_not_computed_is_not_known():
    memory, first = manager(), Tokens(*range(9))
    memory.admit(first)
    again = Tokens(*range(9))
    memory.admit(again)
    assert again.num_computed_tokens == 0
    first.num_computed_tokens = 5
    assert memory.publish(first, 0) == [first.block_table[0]]
    assert memory.publish(first, 5) == []


def test_a_free_hit_is_not_counted_as_a_block_to_give_away():
    """Two blocks, one of them known and free: nine tokens need both and one more."""
    memory, first = manager(num_blocks=2), Tokens(*range(4), 9)
    memory.admit(first)
    compute(memory, first)
    memory.free(first)
    too_long = Tokens(*range(4), *range(5))
    assert not memory.admit(too_long) and memory.num_cached == 1
    fits = Tokens(*range(4), *range(4))
    assert memory.admit(fits) and fits.num_cached_tokens == 4


def test_what_is_known_is_given_away_last_and_from_its_end():
    memory, first = manager(num_blocks=4), Tokens(*range(8), 1)
    memory.admit(first)
    compute(memory, first)
    head, tail, rest = first.block_table
    memory.free(first)
    spare = ({0, 1, 2, 3} - {head, tail, rest}).pop()
    taken = [memory.allocator.allocate() for _ in range(4)]
    assert taken == [rest, spare, tail, head]


def test_a_block_that_is_given_away_is_no_hit():
    memory, first = manager(num_blocks=2), Tokens(*range(8))
    memory.admit(first)
    compute(memory, first)
    memory.free(first)
    other = Tokens(*[5] * 8)
    assert memory.admit(other) and memory.num_cached == 0
    memory.free(other)
    again = Tokens(*range(8))
    assert memory.admit(again) and again.num_cached_tokens == 0


def test_forks_share_and_copy_what_they_write():
    memory, parent = manager(prefix=False), Tokens(*range(6))
    memory.admit(parent)
    compute(memory, parent)
    children = [Tokens(*range(6)) for _ in range(2)]
    assert all(memory.fork(parent, child) for child in children)
    assert memory.num_free == 6
    family = [parent, *children]
    for request in family:
        request.token_ids.append(0)
        assert memory.grow(request)
    shared, last = {r.block_table[0] for r in family}, [r.block_table[1] for r in family]
    assert len(shared) == 1 and len(set(last)) == 3, "the last to write keeps the original"
    original = last[2]
    assert memory.copies == [(original, last[0]), (original, last[1])] and memory.num_free == 4
    for request in family:
        memory.free(request)
    assert memory.num_free == 8


def test_forks_at_a_blocks_edge_have_nothing_to_copy():
    memory, parent, child = manager(prefix=False), Tokens(*range(8)), Tokens(*range(8))
    memory.admit(parent)
    compute(memory, parent)
    assert memory.fork(parent, child)
    for request in (parent, child):
        request.token_ids.append(0)
        assert memory.grow(request)
    assert memory.copies == [] and parent.block_table[2] != child.block_table[2]


@pytest.mark.parametrize("arguments", [{"num_blocks": 1}, {"one_block_each": True}])
def test_a_fork_without_a_place_is_refused(arguments):
    memory, parent, child = manager(**arguments), Tokens(1, 2), Tokens(1, 2)
    memory.admit(parent)
    compute(memory, parent)
    assert not memory.fork(parent, child) and len(child.block_table) == 0


def test_an_allocator_that_gives_less_than_it_says_is_named():
    class Stingy:
        num_free = 3

        def __init__(self, num_blocks):
            pass

        def allocate(self):
            return None

    with pytest.raises(RuntimeError, match="the allocator has 3 free blocks, and gives none"):
        manager(allocator=Stingy).admit(Tokens(1))

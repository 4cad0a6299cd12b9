"""The manager by itself: what a request gets, shares and gives back. Whole lives are in tests/engine/."""

from array import array

import pytest

from minillm.cache.manager import KVCacheManager, NoCacheManager
from minillm.cache.prefix import PrefixCache


class Tokens:
    """A request with the attributes that the manager reads."""

    def __init__(self, *token_ids, may_hit=True, most=10**6):
        self.token_ids, self.may_hit, self.drafts = list(token_ids), may_hit, []
        self.max_cached_tokens = most
        self.num_computed_tokens = self.num_cached_tokens = self.num_published = self.num_drafted_tokens = 0
        self.block_table, self.block_hashes = array("i"), []

    @property
    def num_tokens(self):
        return len(self.token_ids)

    @property
    def num_wanted(self):
        return len(self.token_ids) + len(self.drafts)


def manager(num_blocks=8, block_size=4, prefix=True, **kwargs):
    return KVCacheManager(num_blocks, block_size, PrefixCache(block_size) if prefix else None, **kwargs)


def compute(memory, request):
    request.num_computed_tokens = request.num_tokens
    return memory.publish(request)


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


def test_a_request_may_grow_until_it_has_all_the_blocks_it_can_ever_need():
    memory = manager(block_size=4)
    for most, may_grow in ((4, False), (5, True), (8, True)):
        request = Tokens(1, 2, most=most)
        memory.admit(request)
        assert memory.may_grow(request) == may_grow
    request.drafts = [3, 4, 5]
    assert memory.grow(request) and len(request.block_table) == 2 and not memory.may_grow(request)


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
    assert memory.publish(first) == [first.block_table[0]]
    assert memory.publish(first) == []


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


@pytest.mark.parametrize("arguments", [{"num_blocks": 1}, {"can_fork": False}])
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

    with pytest.raises(RuntimeError, match="the allocator has 3 free blocks, but allocate"):
        manager(allocator=Stingy).admit(Tokens(1))


def test_every_copy_of_a_prefix_is_known_until_the_last_is_given_away():
    memory = manager(num_blocks=3)
    twins = Tokens(*range(4)), Tokens(*range(4))
    for request in twins:
        memory.admit(request)
    for request in twins:
        assert compute(memory, request) == list(request.block_table)
    copies = [request.block_table[0] for request in twins]
    for request in twins:
        memory.free(request)
    assert memory.num_cached == 2
    other = Tokens(*[7] * 8)
    assert memory.admit(other) and memory.num_cached == 1, "the free block without content went first"
    again = Tokens(*range(4), 9)
    memory.free(other)
    assert memory.admit(again) and again.num_cached_tokens == 4 and again.block_table[0] in copies


def test_only_verified_tokens_are_published():
    memory, request = manager(block_size=2), Tokens(1, 2, 3)
    memory.admit(request)
    request.drafts = [4, 5, 6]
    assert memory.grow(request)
    request.token_ids += [4, 9]  # one draft is accepted
    request.drafts, request.num_computed_tokens = [], 4
    assert memory.publish(request) == list(request.block_table[:2])
    assert memory.prefix.match(chain(memory.prefix, 1, 2, 3, 4)) == list(request.block_table[:2])
    request.token_ids.append(8)
    request.num_computed_tokens = 6
    assert memory.publish(request) == [request.block_table[2]]
    assert memory.prefix.match(chain(memory.prefix, 1, 2, 3, 4, 5, 6)) == list(request.block_table[:2])


def chain(prefix, *token_ids):
    hashes = []
    prefix.extend(hashes, token_ids)
    return hashes


def test_a_reset_makes_every_block_free_and_every_prefix_unknown():
    memory = manager(num_blocks=4)
    first, second = Tokens(*range(8)), Tokens(*range(4))
    memory.admit(first)
    compute(memory, first)
    memory.admit(second)
    memory.fork(first, Tokens())
    memory.copies.append((0, 1))
    memory.reset()
    assert (memory.num_free, memory.num_cached, memory.copies, len(memory.prefix)) == (4, 0, [], 0)
    again = Tokens(*range(8))
    assert memory.admit(again) and again.num_cached_tokens == 0


def test_without_a_cache_every_token_is_wanted_again():
    memory, request = NoCacheManager(2, 16), Tokens(1, 2, 3)
    assert memory.admit(request) and memory.counts() is None
    request.num_computed_tokens = 3
    assert memory.publish(request) == [] and request.num_computed_tokens == 0


# --- a proposer whose keys and values at a position depend on the next token too -----------------------


def head_manager(**kwargs):
    return manager(with_draft=True, needs_next_token=True, **kwargs)


def compute_all_but_the_newest(memory, request):
    request.num_computed_tokens = request.num_drafted_tokens = request.num_tokens - 1
    return memory.publish(request)


def test_a_hit_needs_the_token_after_the_block():
    memory, first = head_manager(), Tokens(*range(9))
    memory.admit(first)
    assert compute_all_but_the_newest(memory, first) == list(first.block_table[:2])
    for tokens, num_cached in (((*range(8), 9), 4), (range(9), 8), ((*range(9), 1), 8), (range(8), 4)):
        request = Tokens(*tokens)
        memory.admit(request)
        assert request.num_cached_tokens == num_cached, tokens
        memory.free(request)


def test_a_fork_gets_its_own_last_block_at_once():
    """Both samples write the last position of the prompt again, at the end of a block or not."""
    for length in (7, 8):
        memory, parent = head_manager(), Tokens(*range(length))
        memory.admit(parent)
        parent.num_computed_tokens = length
        child = Tokens(*range(length))
        assert memory.fork(parent, child)
        assert child.block_table[0] == parent.block_table[0] and child.block_table[1] != parent.block_table[1]
        assert memory.copies == [(parent.block_table[1], child.block_table[1])]
        assert memory.allocator.holders(parent.block_table[1]) == 1
        for request in (parent, child):
            memory.free(request)
        assert memory.num_free == memory.num_blocks

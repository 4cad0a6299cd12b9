import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.cache.blocks import BlockAllocator

ACTIONS = st.lists(
    st.sampled_from(["allocate", "share", "revive"]) | st.tuples(st.just("free"), st.booleans()), max_size=60
)


@given(st.integers(1, 5), ACTIONS, st.randoms(use_true_random=False))
def test_blocks_are_lent_and_come_back_in_order(num_blocks, actions, random):
    """Against a plain list: freed blocks to the front, those to keep to the back, the front one first."""
    allocator, queue, held = BlockAllocator(num_blocks), list(range(num_blocks)), []
    for action in actions:
        if action == "allocate":
            expected = queue.pop(0) if queue else None
            assert allocator.allocate() == expected
            held += [] if expected is None else [expected]
        elif action == "share" and held:
            held.append(random.choice(held))
            allocator.share(held[-1])
        elif action == "revive" and queue:
            held.append(queue.pop(random.randrange(len(queue))))
            allocator.share(held[-1])
        elif isinstance(action, tuple) and held:
            block = held.pop(random.randrange(len(held)))
            allocator.free(block, keep=action[1])
            if block not in held:
                queue.insert(len(queue) if action[1] else 0, block)
        assert allocator.num_free == len(queue)
        assert [allocator.holders(block) for block in range(num_blocks)] == list(
            map(held.count, range(num_blocks))
        )


def test_a_block_is_freed_as_often_as_it_was_taken_and_not_once_more():
    allocator = BlockAllocator(2)
    block = allocator.allocate()
    allocator.share(block)
    allocator.free(block)
    assert allocator.num_free == 1
    allocator.free(block)
    assert allocator.num_free == 2
    with pytest.raises(ValueError, match=f"block {block} is freed twice"):
        allocator.free(block)


def test_of_what_is_kept_the_least_recently_used_goes_first():
    allocator = BlockAllocator(4)
    for block in [allocator.allocate() for _ in range(4)]:
        allocator.free(block, keep=True)
    allocator.share(0)  # a hit
    allocator.free(0, keep=True)
    assert [allocator.allocate() for _ in range(4)] == [1, 2, 3, 0]

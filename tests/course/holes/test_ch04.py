"""The holes of chapter 04: other right answers pass, and each wrong answer is told what is wrong with it."""

from collections.abc import Callable
from typing import Any

import pytest

from minillm.course.exercise import Wrong
from minillm.course.holes.ch04 import check_own_block, check_slot, own_block, slot


def by_divmod(table, position, size):
    entry, place = divmod(position, size)
    return place + size * table[entry]


def by_all_slots(table, position, size):
    return [block * size + place for block in table for place in range(size)][position]


@pytest.mark.parametrize("right", [slot, by_divmod, by_all_slots])
def test_a_right_slot_passes(right: Callable[..., int]) -> None:
    check_slot(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda table, p, size: p, "gives the position"),
        (lambda table, p, size: p // size * size + p % size, "gives the position"),
        (lambda table, p, size: table[0] * size + p, "followed the first one"),
        (lambda table, p, size: table[p // size] + p % size, "block's number for a slot"),
        (lambda table, p, size: table[p // size] * size, "first slot of the block"),
        (lambda table, p, size: table[p // size], "number of the block"),
        (lambda table, p, size: p % size, "place in the block only"),
        (lambda table, p, size: table[p // size] * size + p % size + 1, "one slot too far"),
        (lambda table, p, size: table[p % size] * size + p // size, "exchanges // and %"),
        (lambda table, p, size: table[p // size] * 4 + p % 4, "should be 82"),
        (lambda table, p, size: None, "None"),
        (lambda table, p, size: table[p // size] * size + p / size, "an? int is wanted"),
    ],
)
def test_a_wrong_slot_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_slot(wrong)


def freed_first(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] > 1:
        blocks.free(old)
        new = blocks.allocate()
        table[entry] = new
        return [old, new]
    return None


def always(blocks, table, entry):
    old, new = table[entry], blocks.allocate()
    blocks.free(old)
    table[entry] = new
    return old, new


def never(blocks, table, entry):
    return None


def leaks(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] == 1:
        return None
    table[entry] = blocks.allocate()
    return old, table[entry]


def forgets_the_table(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] == 1:
        return None
    blocks.free(old)
    return old, blocks.allocate()


def turned_round(blocks, table, entry):
    pair = own_block(blocks, table, entry)
    return pair and pair[::-1]


def only_the_new(blocks, table, entry):
    pair = own_block(blocks, table, entry)
    return pair and pair[1]


def the_last_entry(blocks, table, entry):
    return own_block(blocks, table, len(table) - 1)


def appends(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] == 1:
        return None
    table.append(blocks.allocate())
    blocks.free(old)
    return old, table[-1]


def frees_for_all(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] == 1:
        return None
    while blocks.references[old]:
        blocks.free(old)
    table[entry] = blocks.free_list.pop(0)
    blocks.references[table[entry]] = 1
    return old, table[entry]


def not_allocated(blocks, table, entry):
    old = table[entry]
    if blocks.references[old] == 1:
        return None
    table[entry] = 0
    blocks.free(old)
    return old, 0


def shares_the_copy(blocks, table, entry):
    pair = own_block(blocks, table, entry)
    if pair:
        blocks.share(pair[1])
    return pair


@pytest.mark.parametrize("right", [own_block, freed_first])
def test_a_right_copy_passes(right: Callable[..., Any]) -> None:
    check_own_block(right)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (always, "No other request holds block 5"),
        (never, "gave None. The block is shared"),
        (leaks, "still has 2 references"),
        (forgets_the_table, "left the table as it was"),
        (turned_round, "from the shared block to its copy"),
        (only_the_new, "Return .old, new."),
        (the_last_entry, "The write goes into block 6"),
        (appends, "only entry 2 changes"),
        (frees_for_all, "has 0 references. It should have 1"),
        (not_allocated, "was not allocated"),
        (shares_the_copy, "the references of blocks 0 to 7"),
    ],
)
def test_a_wrong_copy_is_told(wrong: Callable[..., Any], said: str) -> None:
    with pytest.raises(Wrong, match=said):
        check_own_block(wrong)

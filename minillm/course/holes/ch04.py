"""The holes of chapter 04: the slot of a token, and copy-on-write."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from minillm.course import expect
from minillm.course.hole import Hole


def slot(table: Sequence[int], position: int, size: int) -> int:
    return table[position // size] * size + position % size


def check_slot(function: Callable[..., int]) -> None:
    for table, position, size in (
        ([7, 3, 9], 6, 4),
        ([7, 3, 9], 11, 4),
        ([7, 3, 9], 0, 4),
        ([12, 5], 18, 16),
    ):
        entry, place = divmod(position, size)
        block = table[entry]
        right = block * size + place
        mistakes = {
            "It gives the position. The block table says which block holds the token.": position,
            "It treats the blocks as if they followed the first one. Each entry can be any block.": table[0]
            * size
            + position,
            "It takes a block's number for a slot. Block b begins at slot b * size.": block + place,
            "It gives the first slot of the block to every token of the block.": block * size,
            "It gives the number of the block. Each block has `size` slots.": block,
            "It gives the place in the block only. Add the block's first slot.": place,
            "It is one slot too far. Positions and slots both begin at 0.": right + 1,
        }
        if place < len(table):
            swapped = "It exchanges // and %. The entry is position // size, the place in the block position % size."
            mistakes[swapped] = table[place] * size + entry
        name = f"slot({table}, position={position}, size={size})"
        expect.equal(
            function(list(table), position, size), right, name, mistakes=expect.seen(mistakes, right)
        )


def own_block(blocks: Any, table: list[int], entry: int) -> tuple[int, int] | None:
    shared = table[entry]
    if blocks.references[shared] == 1:
        return None
    table[entry] = blocks.allocate()
    blocks.free(shared)
    return shared, table[entry]


class Pool:
    """Eight blocks with the methods of the chapter's `Blocks`; `held` has the references of those that are held."""

    def __init__(self, held: Mapping[int, int]) -> None:
        self.references = [held.get(block, 0) for block in range(8)]
        self.free_list = [block for block, count in enumerate(self.references) if count == 0]

    def allocate(self) -> int:
        block = self.free_list.pop()
        self.references[block] = 1
        return block

    def share(self, block: int) -> None:
        self.references[block] += 1

    def free(self, block: int) -> None:
        self.references[block] -= 1
        if self.references[block] == 0:
            self.free_list.append(block)


def check_own_block(function: Callable[..., Any]) -> None:
    blocks, table = Pool({7: 2, 6: 2, 5: 1}), [7, 6, 5]
    result = function(blocks, table, 2)
    expect.that(
        result is None and table == [7, 6, 5] and blocks.references == [0, 0, 0, 0, 0, 1, 2, 2],
        "No other request holds block 5 (1 reference), so the write is safe. Return None and change nothing.",
    )
    for count, entry in ((2, 2), (3, 1)):
        _check_copy(function, count, entry)


def _check_copy(function: Callable[..., Any], count: int, entry: int) -> None:
    """Write to an entry of a table of which each block has `count` references."""
    before = [7, 6, 5]
    blocks, table, old = Pool(dict.fromkeys(before, count)), list(before), before[entry]
    case = f"own_block(blocks, table={before}, entry={entry}), where block {old} has {count} references,"
    result = function(blocks, table, entry)
    expect.that(
        result is not None,
        f"{case} gave None. The block is shared: a write into it would change the tokens of another request.",
    )
    expect.that(
        isinstance(result, tuple | list) and len(result) == 2,
        f"{case} gave {result!r:.60}. Return (old, new).",
    )
    first, new = result
    expect.that(
        new != old,
        f"{case} gave ({first}, {new}). The pair is (old, new): from the shared block to its copy.",
    )
    expect.that(first == old, f"{case} copies block {first}. The write goes into block {old}.")
    expect.that(
        new not in blocks.free_list and new not in before and new in range(8),
        f"{case} copies into block {new}, which was not allocated. Call blocks.allocate().",
    )
    right = [*before[:entry], new, *before[entry + 1 :]]
    expect.that(
        table != before, f"{case} left the table as it was. The request would still write into block {old}."
    )
    expect.that(
        table == right, f"{case} made the table {table}. It should be {right}: only entry {entry} changes."
    )
    left = blocks.references[old]
    expect.that(
        left != count,
        f"After the copy block {old} still has {count} references. This request no longer holds it, so free it once. "
        "Otherwise the block is never free again.",
    )
    expect.that(
        left == count - 1, f"After the copy block {old} has {left} references. It should have {count - 1}."
    )
    wanted = [count * (block in before) for block in range(8)]
    wanted[old], wanted[new] = count - 1, 1
    expect.that(
        blocks.references == wanted,
        f"After the copy the references of blocks 0 to 7 are {blocks.references}. They should be {wanted}.",
    )


HOLES = [Hole("04.slot", slot, check_slot), Hole("04.write", own_block, check_own_block)]

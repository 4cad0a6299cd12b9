"""The holes of chapter 09: the names of a text's blocks, and how many tokens can come from the cache."""

from collections.abc import Callable, Sequence
from typing import Any

from minillm.cache.prefix import block_hash
from minillm.course import expect
from minillm.course.hole import Hole

BlockHash = Callable[[bytes, Sequence[int]], bytes]
ROOT = bytes(32)


def chain(token_ids: Sequence[int], size: int, root: bytes, block_hash: BlockHash) -> list[bytes]:
    names = [root]
    for start in range(0, len(token_ids) - size + 1, size):
        names.append(block_hash(names[-1], token_ids[start : start + size]))
    return names[1:]


def check_chain(function: Callable[..., Any]) -> None:
    for token_ids, size in (
        ([5, 6, 2, 8, 4, 9], 2),
        ([7, 1, 3, 5, 5, 5, 2, 9], 3),
        ([1, 2], 3),
        ([4, 1, 4, 1], 2),
    ):
        found = function(list(token_ids), size, ROOT, block_hash)
        right = chain(token_ids, size, ROOT, block_hash)
        mistakes = expect.seen(_chain_mistakes(token_ids, size), right)
        expect.equal(found, right, f"chain({token_ids}, size={size}, …)", mistakes=mistakes)


def _chain_mistakes(token_ids: Sequence[int], size: int) -> dict[str, list[bytes]]:
    """Return what each known mistake gives for these tokens, by the sentence that explains it."""
    right, starts = chain(token_ids, size, ROOT, block_hash), range(0, len(token_ids), size)
    blocks = [list(token_ids[start : start + size]) for start in starts]
    every: list[bytes] = []
    for block in blocks:
        every.append(block_hash(every[-1] if every else ROOT, block))
    return {
        "The list begins with `root`. It is the parent of the first block and names no block itself.": [
            ROOT,
            *right,
        ],
        "The last block is not full, but it has a name. Its tokens will still change: leave it out.": every,
        "A full block at the end has no name. With 6 tokens and blocks of 2 there are three names.": right[
            :-1
        ],
        "Every block has `root` as its parent. The parent is the name of the block before it.": [
            block_hash(ROOT, block) for block in blocks if len(block) == size
        ],
        "A name covers all tokens up to its block again. The parent's name covers those before: "
        "give only the block's own tokens to `block_hash`.": [
            block_hash(ROOT, token_ids[: start + size]) for start in starts[: len(right)]
        ],
        "A name covers the parent's name and all tokens so far. Give only the block's own tokens "
        "to `block_hash`.": _chained(
            ROOT, [list(token_ids[: start + size]) for start in starts[: len(right)]]
        ),
        "There is a name for each token. A name is for a whole block.": _chained(
            ROOT, [[t] for t in token_ids]
        ),
        "Only the last name is returned. Return the names of all full blocks.": right[-1:],
    }


def _chained(root: bytes, parts: Sequence[Sequence[int]]) -> list[bytes]:
    names = [root]
    for part in parts:
        names.append(block_hash(names[-1], part))
    return names[1:]


def reused(num_tokens: int, num_known: int, size: int) -> int:
    return min(num_known, (num_tokens - 1) // size) * size


def check_reused(function: Callable[[int, int, int], Any]) -> None:
    for num_tokens, num_known, size in ((9, 1, 2), (6, 3, 2), (7, 3, 2), (35, 0, 16), (48, 3, 16), (3, 0, 4)):
        right = reused(num_tokens, num_known, size)
        mistakes = _reused_mistakes(num_tokens, num_known, size)
        name = f"reused(num_tokens={num_tokens}, num_known={num_known}, size={size})"
        expect.equal(
            function(num_tokens, num_known, size), right, name, mistakes=expect.seen(mistakes, right)
        )


def _reused_mistakes(num_tokens: int, num_known: int, size: int) -> dict[str, int]:
    """Return what each known mistake gives for these numbers, by the sentence that explains it."""
    known, usable = num_known * size, (num_tokens - 1) // size
    return {
        "All tokens come from the cache. Then none is computed, and there are no logits for the next token.": known,
        "Only part of a block is taken. A block is taken whole or not at all.": min(known, num_tokens - 1),
        "The last known block is always left out. It can be used if a token follows it.": max(
            0, known - size
        ),
        "It takes blocks that are not known. Only `num_known` blocks are in the cache.": usable * size,
        "It counts blocks. Return the number of tokens in them.": min(num_known, usable),
        "It also counts blocks, and leaves no token to compute.": num_known,
        "It gives the tokens that are left to compute. Return those that come from the cache.": num_tokens
        - min(num_known, usable) * size,
    }


HOLES = [Hole("09.chain", chain, check_chain), Hole("09.reused", reused, check_reused)]

"""Prefix caching: a block that was computed once serves every later request that begins with the same tokens.

The keys and values of a token depend on all tokens before it and on nothing else. So a block's content follows from its
own tokens and those of all blocks before it, and a hash of (the hash of the block before, the tokens) names it:

    root ── hash(root, t0…t15) ── hash(that, t16…t31) ── …

Equal hashes mean equal prefixes, so the longest known prefix is found by walking the chain until a hash is unknown: the
dictionary is a radix tree whose edges are whole blocks. sha256, because a user who could make two texts collide could
read another user's answers out of the cache.

Source: vLLM's automatic prefix caching; Zheng et al. 2024, "SGLang" (arXiv 2312.07104), section 3, for the tree.
"""

from array import array
from collections.abc import Sequence
from hashlib import sha256


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The name of a full block: 32 bytes that depend on its tokens and, through `parent`, on all before them."""
    return sha256(parent + array("q", token_ids).tobytes()).digest()


class PrefixCache:
    """Which blocks hold which prefix. It owns no block: the allocator decides how long a free one keeps its content.

    Requests that compute the same prefix at the same time each fill a block with it. All of these copies are known, so
    that the prefix is found until the last of them is given away.
    """

    def __init__(self, block_size: int, seed: int = 0) -> None:
        self.block_size = block_size
        self.root = sha256(seed.to_bytes(8, "little")).digest()
        self._blocks_of: dict[bytes, list[int]] = {}
        self._hash_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        """The number of blocks whose content is known."""
        return len(self._hash_of)

    def __contains__(self, block: int) -> bool:
        """Whether the block's content is known, and so worth keeping."""
        return block in self._hash_of

    def extend(self, hashes: list[bytes], token_ids: Sequence[int]) -> None:
        """Complete the `hashes` of a sequence's first full blocks to those of all its full blocks."""
        size = self.block_size
        for start in range(len(hashes) * size, len(token_ids) - size + 1, size):
            hashes.append(block_hash(hashes[-1] if hashes else self.root, token_ids[start : start + size]))

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """The blocks of the longest known prefix."""
        found = []
        for name in hashes:
            blocks = self._blocks_of.get(name)
            if blocks is None:
                break
            found.append(blocks[0])
        return found

    def publish(self, block: int, name: bytes) -> bool:
        """Let others find `block`. Return False if it is known under this name already."""
        if self._hash_of.get(block) == name:
            return False
        self._blocks_of.setdefault(name, []).append(block)
        self._hash_of[block] = name
        return True

    def forget(self, block: int) -> None:
        """Evict the known `block`: it is about to hold something else."""
        name = self._hash_of.pop(block)
        self._blocks_of[name].remove(block)
        if not self._blocks_of[name]:
            del self._blocks_of[name]

"""Prefix caching: a block is computed once and serves every later request that begins with the same tokens.

The keys and values of a token depend on that token and all tokens before it, and on nothing else. So the content of a
full block follows from its own tokens and those of all blocks before it. Its name is a hash of two things, the name of
the previous block and its own tokens:

    root ── hash(root, t0…t15) ── hash(that, t16…t31) ── …

Equal names mean equal prefixes. To find the longest known prefix, `match` follows the names of a request's blocks
until one is unknown. The dictionary of names is therefore a radix tree in which each edge is a whole block. The hash is
sha256: with a weaker hash, a user could make two texts collide and read another user's answers from the cache.

Source: vLLM's automatic prefix caching; Zheng et al. 2024, "SGLang" (arXiv 2312.07104), section 3, for the tree.
"""

from array import array
from collections.abc import Iterator, Sequence
from hashlib import sha256


def block_hash(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Return the name of a full block: 32 bytes that depend on its tokens and, through `parent`, on all before them."""
    return sha256(parent + array("q", token_ids).tobytes()).digest()


class PrefixCache:
    """A dictionary from names to the blocks that hold their content. It owns no blocks.

    The allocator decides how long a free block keeps its content. Requests that compute the same prefix at the same
    time each fill a block of their own. The dictionary keeps all of these copies, so the prefix stays known until the
    last copy is evicted.
    """

    def __init__(self, block_size: int, seed: int = 0) -> None:
        self.block_size = block_size
        self.root = sha256(seed.to_bytes(8, "little")).digest()
        self._blocks_of: dict[bytes, list[int]] = {}
        self._hash_of: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Return the number of blocks whose content is known."""
        return len(self._hash_of)

    def __contains__(self, block: int) -> bool:
        """Return whether the block's content is known, and so worth keeping when the block is freed."""
        return block in self._hash_of

    def __iter__(self) -> Iterator[int]:
        """Iterate over the blocks whose content is known."""
        return iter(self._hash_of)

    def extend(self, hashes: list[bytes], token_ids: Sequence[int]) -> None:
        """Append to `hashes`, which names a sequence's first full blocks, until it names all its full blocks."""
        size = self.block_size
        for start in range(len(hashes) * size, len(token_ids) - size + 1, size):
            hashes.append(block_hash(hashes[-1] if hashes else self.root, token_ids[start : start + size]))

    def match(self, hashes: Sequence[bytes]) -> list[int]:
        """Return the blocks of the longest known prefix, in order: one per name until a name is unknown."""
        found = []
        for name in hashes:
            blocks = self._blocks_of.get(name)
            if blocks is None:
                break
            found.append(blocks[0])
        return found

    def count_known(self, hashes: Sequence[bytes]) -> int:
        """Return the number of blocks that `match` would find. Any thread may call this."""
        return next((i for i, name in enumerate(hashes) if name not in self._blocks_of), len(hashes))

    def publish(self, block: int, name: bytes) -> bool:
        """Make `block` known under `name`, so that other requests find it. Return False if it already is."""
        if self._hash_of.get(block) == name:
            return False
        self._blocks_of.setdefault(name, []).append(block)
        self._hash_of[block] = name
        return True

    def forget(self, block: int) -> None:
        """Evict the known `block`: remove its name, because the block is about to get new content."""
        name = self._hash_of.pop(block)
        self._blocks_of[name].remove(block)
        if not self._blocks_of[name]:
            del self._blocks_of[name]

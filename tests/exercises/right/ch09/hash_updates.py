# exercise: 09.1
"""One hash object a block, fed piece by piece: four bytes an id, the other way round."""

from hashlib import sha256


def extend_hashes(hashes, token_ids, block_size, root):
    while (len(hashes) + 1) * block_size <= len(token_ids):
        digest = sha256(hashes[-1] if hashes else root)
        for token in token_ids[len(hashes) * block_size : (len(hashes) + 1) * block_size]:
            digest.update(token.to_bytes(4, "big"))
        hashes.append(digest.digest())

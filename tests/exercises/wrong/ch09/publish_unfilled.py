# exercise: 09.4
# says: is not full
"""Rounded up: the block that has begun counts."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[before // block_size : -(-after // block_size)]
    return blocks

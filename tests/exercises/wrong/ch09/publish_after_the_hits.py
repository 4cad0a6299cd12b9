# exercise: 09.4
# says: of an earlier chunk
"""What came from the cache is known, so begin after it: but a later chunk is told of no hits."""


def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        after = part.num_computed_tokens + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[part.num_cached_tokens // block_size : after // block_size]
    return blocks

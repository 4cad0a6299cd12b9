# exercise: 09.4
# says: of the second request
"""A return inside the loop."""


def publishable(scheduled, rejected, block_size):
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks = part.blocks[before // block_size : after // block_size]
        if blocks:
            return blocks
    return []

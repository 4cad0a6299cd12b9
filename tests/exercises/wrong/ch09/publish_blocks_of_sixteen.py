# exercise: 09.4
# says: in blocks of 3
"""Blocks of 16."""

def publishable(scheduled, rejected, block_size):
    block_size, blocks = 16, []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[before // block_size : after // block_size]
    return blocks

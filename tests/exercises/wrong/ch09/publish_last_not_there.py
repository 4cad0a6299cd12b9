# exercise: 09.4
# says: has 1 entries; 2 are wanted
"""The last token is not there yet."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - 1 - rejected.get(part.request_id, 0)
        blocks += part.blocks[before // block_size : after // block_size]
    return blocks

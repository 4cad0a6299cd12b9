# exercise: 09.4
# says: with the tokens of two steps
"""Who begins within a block publishes it only if all of it was written now."""

def publishable(scheduled, rejected, block_size):
    blocks = []
    for part in scheduled:
        before = part.num_computed_tokens
        after = before + part.num_tokens - rejected.get(part.request_id, 0)
        blocks += part.blocks[-(-before // block_size) : after // block_size]
    return blocks
